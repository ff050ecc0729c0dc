// Layers whose steps run at the same time, each a chunk behind the one below, give the bits of the
// CPU's kernels.
#include <algorithm>
#include <limits>

#include "check.h"
#include "cuda/host/call_memory.h"
#include "forced.h"
#include "on_device.h"
#include "orders.h"
#include "stack.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

using cuda::PersistentShape;
using cuda::Plan;

Plan side_by_side(Plan plan, int layers) {
  for (cuda::Choice &choice : plan.layers)
    choice.side_by_side = layers;
  return plan;
}
TEST(layers_side_by_side) {
  const std::vector<int64_t> lengths = {7, 1, 4, 5, 7};
  for (int64_t layers : {2, 5})
    for (Precision precision : {kInt8, kInt16}) {
      const TypedShape shape = shape_of(7, 20, 0, layers, 1, precision);
      const SourceStack stack = random_stack(shape, Weights::any, 201);
      const StackOnDevice on_device(stack);
      const Sequence sequence = random_sequence(shape, 7, 5, 202);
      for (bool with_lengths : {false, true}) {
        const std::vector<int64_t> rows = with_lengths ? lengths : std::vector<int64_t>();
        const Result expected = forward(stack.packed(), sequence, 1, rows);
        for_each_order([&] {
          for (const PersistentShape &s : {cluster_of(20, 1), grid_of(20, 1)})
            for (const auto &[together, steps] :
                 {std::pair(2, 1), {2, 3}, {3, 2}, {4, 1}, {4, 7}}) {
              const PersistentShape of = of_arithmetic(s, cuda::arithmetic_of(precision));
              WITH(name_of(of), " layers ", layers, " together ", together, " steps a chunk ",
                   steps, " lengths ", with_lengths);
              check_same(forward(on_device, sequence, plan_of(of, layers, together), steps, rows),
                         expected);
            }
        });
      }
    }
}

// Groups with others between them, of other shapes, or with launches for each step.
TEST(groups_one_above_the_other) {
  const TypedShape shape = shape_of(5, 20, 0, 6, 1);
  const SourceStack stack = random_stack(shape, Weights::any, 203);
  const StackOnDevice on_device(stack);
  const Sequence sequence = random_sequence(shape, 5, 9, 204);
  const Result expected = forward(stack.packed(), sequence);
  const PersistentShape grid = grid_of(20, 1), wide = grid_of(20, 2), cluster = cluster_of(20, 1),
                        wider = grid_of(20, 3);
  const std::vector<PersistentShape> stacks[] = {{grid, grid, wide, wide, wide, cluster},
                                                 {cluster, wider, wider, grid, grid, wider},
                                                 {wide, wide, wide, wide, wide, wide}};
  for (const auto &shapes : stacks)
    for (int plain : {-1, 0, 2, 5})
      for_each_order([&] {
        for (int together : {2, 4})
          for (int64_t steps : {1, 2}) {
            Plan plan = side_by_side(plan_of(shapes), together);
            if (plain >= 0)
              plan.layers[static_cast<size_t>(plain)] = {};
            WITH("plain ", plain, " together ", together, " steps ", steps);
            check_same(forward(on_device, sequence, plan, steps), expected);
          }
      });
}

TEST(which_layers_are_a_group) {
  const auto counts = [](const std::vector<cuda::Choice> &layers) {
    std::vector<int64_t> found;
    int64_t next = 0;
    for (const cuda::LayerGroup &group : cuda::groups_of(layers)) {
      CHECK(group.first == next);
      next += group.count;
      found.push_back(group.count);
    }
    CHECK(next == static_cast<int64_t>(layers.size()));
    return found;
  };
  using Counts = std::vector<int64_t>;
  const PersistentShape a = grid_of(40, 1), b = grid_of(40, 2);
  CHECK(counts(plan_of({a, a, a}).layers) == Counts({1, 1, 1}));
  CHECK(counts(plan_of(a, 5, 2).layers) == Counts({2, 2, 1}));
  CHECK(counts(plan_of(a, 5, 4).layers) == Counts({4, 1}));
  CHECK(counts(side_by_side(plan_of({a, b, b, a, a}), 3).layers) == Counts({1, 2, 2}));
  std::vector<cuda::Choice> mixed = plan_of(a, 5, 4).layers;
  mixed[2].persistent = false;
  CHECK(counts(mixed) == Counts({2, 1, 2}));
  CHECK(counts(side_by_side(plan_of({of_rows(a, 99), of_rows(a, 99, 3)}), 2).layers) ==
        Counts({1, 1}));
  CHECK(counts({}).empty());
}

// NaN in one row of the first layer reaches the last one, and no other row.
TEST(a_row_of_nan_side_by_side) {
  const TypedShape shape = shape_of(6, 40, 0, 3, 1);
  const SourceStack stack = random_stack(shape, Weights::any, 205);
  Sequence sequence = random_sequence(shape, 7, 4, 206);
  sequence.x[(2 * 4 + 1) * 6] = std::numeric_limits<float>::quiet_NaN();
  const Result expected = forward(stack.packed(), sequence);
  for (const PersistentShape &s : {cluster_of(40, 1), grid_of(40, 1)})
    check_same(forward(StackOnDevice(stack), sequence, plan_of(s, 3, 3), 2), expected);
}

// Any group that may be chosen has room in the workspace, of which not a byte less is asked for.
TEST(a_workspace_for_any_group) {
  const TypedShape shape = shape_of(7, 40, 0, 4, 1);
  const StackOnDevice on_device(random_stack(shape, Weights::any, 209));
  const cuda::PackedStack &stack = on_device.view().packed();
  LstmArguments a;
  a.batch_size = 3;
  for (int64_t T : {1, 2, 100, 1000}) {
    a.time_steps = T;
    const Schedule schedule(a);
    const int64_t bytes = cuda::workspace_of(stack, a, schedule);
    WITH("T ", T);
    int64_t most = 0;
    for (int together = 1; together <= cuda::most_side_by_side(stack, 3, T); ++together) {
      const cuda::Timeline timeline(schedule, T, 1);
      most = std::max(most,
                      cuda::CallMemory(stack, a, schedule, timeline, together,
                                       cuda::chunk_rows_for(stack, a, timeline, together), nullptr)
                          .bytes);
    }
    CHECK(bytes == most);
    CHECK(cuda::most_side_by_side(stack, 3, T) == (T > 1 ? 4 : 1));
  }
}

TEST(who_may_run_side_by_side) {
  const auto most = [](const TypedShape &shape, int64_t rows = 1) {
    return cuda::most_side_by_side(
        StackOnDevice(random_stack(shape, Weights::any, 210)).view().packed(), rows, 10);
  };
  CHECK(most(shape_of(5, 40)) == 1);
  CHECK(most(shape_of(5, 40, 0, 3)) == 3);
  CHECK(most(shape_of(5, 40, 0, 7, 1, kInt16)) == 4);
  CHECK(most(shape_of(5, 40, 0, 3, 2)) == 1);
  CHECK(most(shape_of(5, 40, 20, 3)) == 1);
  CHECK(most(shape_of(5, 40, 0, 3, 1, kFloat32)) == 1);
  // A batch of several ranges of rows has as many in place of layers.
  CHECK(most(shape_of(5, 40, 0, 3), 128) == 2);
  CHECK(most(shape_of(5, 40, 0, 3), 129) == 1);
  CHECK(most(shape_of(5, 40, 0, 3), 257) == 1);
}

} // namespace
} // namespace lstm_fastkernels
