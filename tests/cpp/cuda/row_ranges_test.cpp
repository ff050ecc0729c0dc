// Batches of more rows than a block takes: ranges of rows, side by side.
#include <limits>

#include "check.h"
#include "forced.h"
#include "on_device.h"
#include "orders.h"
#include "stack.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

using cuda::PersistentShape;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// What a plan gives, without a failure.
Result run(const StackOnDevice &on_device, const Sequence &sequence, const cuda::Plan &plan,
           int64_t steps, const std::vector<int64_t> &lengths = {}) {
  const Result found = forward(on_device, sequence, plan, steps, lengths);
  CHECK(*plan.failed == 0);
  return found;
}

cuda::Plan plan_for(const PersistentShape &shape, const TypedShape &of, int side_by_side = 1) {
  return plan_of(of_arithmetic(shape, cuda::arithmetic_of(of.precision)), of.num_layers,
                 side_by_side);
}

TEST(ranges_of_rows) {
  for (int64_t directions : {1, 2})
    for (int64_t B : {65, 128, 129, 250}) {
      if (directions == 2 && B > 128)
        continue;
      const TypedShape shape = shape_of(3, 20, 0, 1, directions, B % 2 ? kInt8 : kInt16);
      const SourceStack stack = random_stack(shape, Weights::any, 301);
      const StackOnDevice on_device(stack);
      const Sequence sequence = random_sequence(shape, 4, B, 302);
      for (const auto &lengths : {std::vector<int64_t>(), random_lengths(4, B, 303)}) {
        const Result expected = forward(stack.packed(), sequence, 1, lengths);
        for (const PersistentShape &s : {cluster_of(20, 1), grid_of(20, 1)})
          for (int64_t steps : {0, 1, 3}) {
            WITH(name_of(s), " directions ", directions, " batch ", B, " lengths ", lengths.size(),
                 " steps ", steps);
            check_same(run(on_device, sequence, plan_for(s, shape), steps, lengths), expected);
          }
      }
    }
}

// More ranges than there must be.
TEST(any_number_of_ranges) {
  for (Precision precision : {kInt8, kInt16})
    for (int64_t B : {9, 20, 40, 100}) {
      const TypedShape shape = shape_of(3, 20, 0, 1, 1, precision);
      const SourceStack stack = random_stack(shape, Weights::any, 315);
      const StackOnDevice on_device(stack);
      const Sequence sequence = random_sequence(shape, 3, B, 316);
      for (const auto &lengths : {std::vector<int64_t>(), random_lengths(3, B, 317)}) {
        const Result expected = forward(stack.packed(), sequence, 1, lengths);
        for (int ranges = 2; ranges <= cuda::kMostSideBySide; ++ranges)
          for (const PersistentShape &s : {cluster_of(20, 1), grid_of(20, 1)}) {
            const PersistentShape split = of_rows(s, B, ranges);
            if (split.rows == 0)
              continue;
            WITH(name_of(split), " batch ", B, " precision ", precision_name(precision),
                 " lengths ", lengths.size());
            check_same(run(on_device, sequence, plan_for(split, shape), 2, lengths), expected);
          }
      }
    }
}

// Most rows are done, or have not started, in most chunks: some ranges have nothing to do there.
TEST(ranges_without_rows) {
  const int64_t T = 9, B = 140;
  std::vector<int64_t> lengths(B, 2);
  lengths[7] = 9;
  for (int64_t i = 0; i < 50; ++i)
    lengths[static_cast<size_t>(3 * i + 1) % B] = 5;
  const TypedShape shape = shape_of(3, 20, 0, 2, 1);
  const SourceStack stack = random_stack(shape, Weights::any, 304);
  const StackOnDevice on_device(stack);
  const Sequence sequence = random_sequence(shape, T, B, 305);
  const Result expected = forward(stack.packed(), sequence, 1, lengths);
  for_each_order([&] {
    for (const PersistentShape &s : {cluster_of(20, 1), grid_of(20, 1)})
      for (int64_t steps : {0, 1, 2}) {
        WITH(name_of(s), " steps ", steps);
        check_same(run(on_device, sequence, plan_for(s, shape), steps, lengths), expected);
      }
  });
  const TypedShape both = shape_of(3, 20, 0, 1, 2);
  const SourceStack of_both = random_stack(both, Weights::any, 306);
  const Sequence short_one = random_sequence(both, T, 128, 307);
  lengths.resize(128);
  for (const PersistentShape &s : {cluster_of(20, 1), grid_of(20, 1)})
    for (int64_t steps : {1, 2})
      check_same(run(StackOnDevice(of_both), short_one, plan_for(s, both), steps, lengths),
                 forward(of_both.packed(), short_one, 1, lengths));
}

TEST(layers_and_ranges_side_by_side) {
  const int64_t B = 100;
  const TypedShape shape = shape_of(3, 20, 0, 3, 1);
  const SourceStack stack = random_stack(shape, Weights::any, 308);
  const StackOnDevice on_device(stack);
  const Sequence sequence = random_sequence(shape, 5, B, 309);
  for (const auto &lengths : {std::vector<int64_t>(), random_lengths(5, B, 310)}) {
    const Result expected = forward(stack.packed(), sequence, 1, lengths);
    for_each_order([&] {
      for (const PersistentShape &s : {cluster_of(20, 1), grid_of(20, 1)})
        for (int64_t steps : {1, 2}) {
          WITH(name_of(s), " steps ", steps, " lengths ", lengths.size());
          check_same(run(on_device, sequence, plan_for(s, shape, 2), steps, lengths), expected);
        }
    });
  }
}

TEST(rows_of_nan_in_each_range) {
  const TypedShape shape = shape_of(6, 20, 0, 1, 2);
  const SourceStack stack = random_stack(shape, Weights::any, 311);
  const StackOnDevice on_device(stack);
  for (int64_t row : {0, 33, 63, 64, 98}) {
    Sequence sequence = random_sequence(shape, 4, 99, 312);
    sequence.x[static_cast<size_t>((99 + row) * 6)] = kNan;
    sequence.h0[static_cast<size_t>((98 - row) * 20 + 3)] = kNan;
    const Result expected = forward(stack.packed(), sequence);
    for (const PersistentShape &s : {cluster_of(20, 1), grid_of(20, 1)})
      for (int64_t steps : {0, 2}) {
        WITH(name_of(s), " row ", row, " steps ", steps);
        check_same(run(on_device, sequence, plan_for(s, shape), steps), expected);
      }
  }
}

} // namespace
} // namespace lstm_fastkernels
