// Persistent blocks that wait in vain for others: NaN, and an error for the call after it.
#include <algorithm>
#include <cmath>

#include "check.h"
#include "cuda/kernels/exchange.h"
#include "emulator.h"
#include "forced.h"
#include "on_device.h"
#include "stack.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

using cuda::PersistentShape;

bool all_nan(const std::vector<float> &values, size_t first = 0) {
  return std::all_of(values.begin() + static_cast<std::ptrdiff_t>(first), values.end(),
                     [](float v) { return std::isnan(v); });
}
bool any_nan(const std::vector<float> &values) {
  return std::any_of(values.begin(), values.end(), [](float v) { return std::isnan(v); });
}
// Each value is as expected, or NaN.
bool same_or_nan(const std::vector<float> &found, const std::vector<float> &expected) {
  return std::equal(found.begin(), found.end(), expected.begin(), expected.end(),
                    [](float a, float b) { return std::isnan(a) || a == b; });
}

// A call of 6 steps, 40 units in 3 blocks and 3 rows, of whose stores to other blocks one is lost.
struct Lossy {
  TypedShape shape;
  SourceStack stack;
  StackOnDevice on_device;
  Sequence sequence;
  Result expected;

  static constexpr int64_t kSteps = 6, kHidden = 40, kRows = 3;

  explicit Lossy(int64_t layers, int64_t directions = 1, Precision precision = kInt8)
      : shape(shape_of(5, kHidden, 0, layers, directions, precision)),
        stack(random_stack(shape, Weights::any, 141)), on_device(stack),
        sequence(random_sequence(shape, kSteps, kRows, 142)),
        expected(forward(stack.packed(), sequence)) {}

  Result run(const PersistentShape &s, int64_t lost, int64_t chunk_steps, bool fails = true,
             const std::vector<int64_t> &lengths = {}, int side_by_side = 1) const {
    cuda::Plan plan = plan_of(s, shape.num_layers, side_by_side);
    uint32_t failed = 0;
    plan.failed = &failed;
    device::emulator::lose_store(lost);
    const Result found = forward(on_device, sequence, plan, chunk_steps, lengths);
    device::emulator::lose_store(0);
    CHECK(failed == (fails ? 1 : 0));
    return found;
  }
  // Where the outputs of a time step begin.
  size_t y_at(int64_t t) const { return static_cast<size_t>(t * kRows * sequence.y_columns()); }
};

// Stores of all blocks in a step.
int64_t stores_of(const PersistentShape &s) {
  // Of 3 rows and 3 tiles: in packets of 3 words, and one of the status; or twice 16 bytes, and
  // NaNs, for each block.
  if (!s.cluster)
    return 3 * (3 * 8 / 3 + 1);
  const int64_t blocks = s.tiles == 1 ? 3 : 2;
  return blocks * (3 * 3 * 2 + blocks);
}

void check_lost_stores(Precision precision) {
  const Lossy of(1, 1, precision);
  for (const PersistentShape &shape : shapes_of(Lossy::kHidden))
    for (uint64_t order : {2, 3}) {
      const PersistentShape s = of_arithmetic(shape, cuda::arithmetic_of(precision));
      device::emulator::set_order(order);
      const int64_t stores = stores_of(s), all = stores * (Lossy::kSteps - 1);
      for (int64_t lost : {int64_t{1}, stores + 1, all}) {
        WITH(name_of(s), " order ", order, " lost ", lost);
        const Result found = of.run(s, lost, 0);
        CHECK(same_or_nan(found.y, of.expected.y));
        CHECK(same_or_nan(found.h, of.expected.h));
        CHECK(same_or_nan(found.c, of.expected.c));
        CHECK(any_nan(found.h) && any_nan(found.c));
        // The first step needs no other block, but all need all two steps after a loss.
        CHECK(!any_nan({found.y.begin(), found.y.begin() + static_cast<ptrdiff_t>(of.y_at(1))}));
        if (lost <= stores) {
          CHECK(all_nan(found.y, of.y_at(3)));
          CHECK(all_nan(found.h) && all_nan(found.c));
        }
      }
      const Result well = of.run(s, all + 1, 0, false);
      check_same(well, of.expected);
    }
  device::emulator::set_order(0);
}

TEST(a_lost_store_ends_in_nan) {
  for (Precision precision : {kInt8, kInt16})
    check_lost_stores(precision);
}

// The block that did not get a share of the last exchange is the only one that has failed; what
// goes on from its state is NaN, and so are the layers that read what it gave.
TEST(a_failure_reaches_later_launches) {
  for (const PersistentShape &s : shapes_of(Lossy::kHidden)) {
    WITH(name_of(s));
    const int64_t stores = stores_of(s);
    const Lossy of(1), of_two(2), of_both(1, 2);
    const Result chunked = of.run(s, stores, 2);
    CHECK(same_or_nan(chunked.y, of.expected.y));
    CHECK(any_nan({chunked.y.begin() + static_cast<ptrdiff_t>(of.y_at(1)),
                   chunked.y.begin() + static_cast<ptrdiff_t>(of.y_at(2))}));
    CHECK(all_nan(chunked.y, of.y_at(2)));
    CHECK(all_nan(chunked.h) && all_nan(chunked.c));
    const Result deep = of_two.run(s, 1, 0);
    CHECK(same_or_nan(deep.y, of_two.expected.y));
    CHECK(all_nan(deep.y, of_two.y_at(3)));
    CHECK(all_nan(deep.h) && all_nan(deep.c));
    const Result both = of_both.run(s, 1, 0);
    CHECK(same_or_nan(both.y, of_both.expected.y));
    CHECK(any_nan(both.y) && any_nan(both.h) && any_nan(both.c));
  }
}

// A row that starts in reverse after a launch that has failed starts from what it was given.
TEST(a_failure_before_a_row_starts) {
  const Lossy of(1, 2);
  const std::vector<int64_t> lengths = {6, 6, 2};
  const Result expected = forward(of.stack.packed(), of.sequence, 1, lengths);
  for (uint64_t order : {0, 1}) { // the first direction comes first, or last
    device::emulator::set_order(order);
    for (const PersistentShape &s : shapes_of(Lossy::kHidden))
      for (int64_t lost : {int64_t{1}, stores_of(s)}) {
        WITH(name_of(s), " order ", order, " lost ", lost);
        const Result found = of.run(s, lost, 2, true, lengths);
        CHECK(same_or_nan(found.y, expected.y));
        CHECK(same_or_nan(found.h, expected.h));
        CHECK(same_or_nan(found.c, expected.c));
        CHECK(any_nan(found.h) && any_nan(found.c));
      }
  }
  device::emulator::set_order(0);
}

// In some wave of layers side by side.
TEST(a_lost_store_side_by_side) {
  const Lossy of(2);
  for (const PersistentShape &s : shapes_of(Lossy::kHidden))
    for (int64_t lost : {1, 25, 40}) {
      WITH(name_of(s), " lost ", lost);
      const Result found = of.run(s, lost, 2, true, {}, 2);
      CHECK(same_or_nan(found.y, of.expected.y));
      CHECK(any_nan(found.y) && std::isnan(found.h.back()) && std::isnan(found.c.back()));
    }
}

// What one range of rows loses is its own.
TEST(a_lost_store_of_a_range) {
  const int64_t B = 100;
  const TypedShape shape = shape_of(5, 40);
  const SourceStack stack = random_stack(shape, Weights::any, 145);
  const StackOnDevice on_device(stack);
  const Sequence sequence = random_sequence(shape, 4, B, 146);
  const Result expected = forward(stack.packed(), sequence);
  for (const PersistentShape &s : {cluster_of(40, 1), grid_of(40, 1)}) {
    WITH(name_of(s));
    uint32_t failed = 0;
    cuda::Plan plan = plan_of(s, 1);
    plan.failed = &failed;
    device::emulator::lose_store(1);
    const Result found = forward(on_device, sequence, plan);
    device::emulator::lose_store(0);
    CHECK(failed == 1);
    CHECK(same_or_nan(found.h, expected.h));
    const auto second = found.h.begin() + cuda::rows_of_range(B, 2) * 40;
    const std::vector<float> ranges[] = {{found.h.begin(), second}, {second, found.h.end()}};
    CHECK(all_nan(ranges[0]) != all_nan(ranges[1]));
    CHECK(any_nan(ranges[0]) != any_nan(ranges[1]));
  }
}

struct Wait {
  uint64_t patience_ns = 0;
  uint64_t *waited_ns = nullptr;
};
LFK_KERNEL(32, 1) wait_kernel(LFK_PARAMETERS(Wait) p) {
  const uint64_t start = device::global_timer_ns();
  cuda::Patience patience;
  while (!patience.ran_out(p.patience_ns))
    ;
  if (device::lane() == 0)
    *p.waited_ns = device::global_timer_ns() - start;
}

TEST(patience_lasts) {
  constexpr uint64_t kPatience = 10'000'000'000'000; // the emulator's clock makes large steps
  for (int i = 0; i < 3; ++i) {
    uint64_t waited = 0;
    device::launch(wait_kernel, {{}, 32}, nullptr, Wait{kPatience, &waited});
    WITH("launch ", i, " waited ", waited);
    CHECK(waited > kPatience && waited < 3 * kPatience);
  }
}

TEST(the_call_after_a_failure_is_refused_once) {
  for (int64_t hidden : {40, 260}) { // in a cluster, on the grid
    const int64_t rows = 9;
    WITH("hidden ", hidden);
    const TypedShape shape = shape_of(5, hidden);
    const SourceStack stack = random_stack(shape, Weights::any, 143);
    const StackOnDevice on_device(stack);
    const Sequence sequence = random_sequence(shape, 5, rows, 144);
    const Result expected = forward(stack.packed(), sequence);
    device::emulator::lose_store(1);
    const Result lost = forward(on_device, sequence);
    device::emulator::lose_store(0);
    CHECK(all_nan(lost.h) && all_nan(lost.c));
    Result untouched;
    const LstmArguments a = arguments_for(sequence, untouched);
    const std::vector<float> before = untouched.y;
    CHECK_THROWS(on_device.forward(a), "waited too long");
    CHECK_SAME(untouched.y, before);
    check_same(forward(on_device, sequence), expected);
  }
}

} // namespace
} // namespace lstm_fastkernels
