// lstm_forward of stacks in blocks against the reference, which knows no blocks, and against the
// same weights handed over dense.
#include <limits>

#include "check.h"
#include "reference.h"
#include "stack.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

void check_stack(const SourceStack &stack, int64_t T, int64_t B,
                 const std::vector<int64_t> &lengths = {}) {
  const Sequence sequence = random_sequence(stack.shape, T, B, 72);
  const Result expected = reference_forward(stack, sequence, lengths);
  const auto packed = stack.packed(), dense = as_dense(stack).packed();
  for_each_isa([&](std::string_view) {
    check_same(forward(packed, sequence, 1, lengths), expected);
    check_same(forward(dense, sequence, 1, lengths), expected);
  });
}

TEST(each_matrix_may_be_in_blocks) {
  for (Precision precision : kBlockPrecisions)
    for (int in_blocks_mask = 0; in_blocks_mask < 8; ++in_blocks_mask)
      for (int64_t directions : {1, 2}) {
        WITH("precision ", precision_name(precision), " mask ", in_blocks_mask, " directions ",
             directions);
        const TypedShape shape = shape_of(7, 19, 10, 2, directions, precision);
        SourceStack stack = in_blocks(random_stack(shape, Weights::any, 71), {8, 4}, 0.5f);
        for (SourceLayer &layer : stack.layers) {
          SourceMatrix *const matrices[] = {&layer.ih, &layer.hh, &layer.hr};
          for (int m = 0; m < 3; ++m)
            if (!(in_blocks_mask & 1 << m))
              matrices[m]->block = {};
        }
        check_stack(stack, 3, 3);
      }
}

TEST(every_block_shape_and_density_equals_the_reference) {
  for (Precision precision : kBlockPrecisions)
    for (const BlockShape &block : kBlockShapes)
      for (float density : {0.0f, 0.05f, 0.5f, 1.0f})
        for (Weights weights : {Weights::pair_safe, Weights::any})
          for (int64_t proj : {0, 10}) {
            WITH("precision ", precision_name(precision), " rows a block ", block.rows, " density ",
                 density, " proj ", proj);
            const TypedShape shape = shape_of(33, 31, proj, 1, 1, precision);
            check_stack(in_blocks(random_stack(shape, weights, 73), block, density), 2, 3);
          }
}

TEST(blocks_of_awkward_sizes_equal_the_reference) {
  Random random(2);
  for (int64_t input : kAwkward)
    for (int64_t hidden : kAwkward) {
      const Precision precision = kBlockPrecisions[random.integer(0, 2)];
      const int64_t proj = random.integer(0, 1) ? hidden / 2 : 0;
      const uint64_t seed = random.bits();
      WITH("input ", input, " hidden ", hidden, " proj ", proj, " precision ",
           precision_name(precision), " seed ", seed);
      const TypedShape shape = shape_of(input, hidden, proj, 1, 1, precision);
      check_stack(in_mixed_blocks(random_stack(shape, Weights::any, 74), seed), 2, 1);
    }
}

// 17, 18, 19 and 33 tiles: more than one window, the last one short.
TEST(several_windows_equal_the_reference) {
  for (int64_t hidden : {129, 137, 151, 264})
    for (Precision precision : kBlockPrecisions) {
      WITH("hidden ", hidden, " precision ", precision_name(precision));
      const TypedShape shape = shape_of(9, hidden, 12, 1, 2, precision);
      check_stack(in_blocks(random_stack(shape, Weights::any, 75), {8, 4}, 0.2f), 2, 2);
    }
}

TEST(batches_in_blocks_equal_the_reference) {
  for (Precision precision : kBlockPrecisions)
    for (int64_t B = 1; B <= 20; ++B) {
      WITH("precision ", precision_name(precision), " batch ", B);
      const SourceStack stack = random_stack(shape_of(9, 17, 0, 1, 1, precision), Weights::any, 76);
      check_stack(in_blocks(stack, {8, 4}, 0.5f), 2, B);
    }
}

TEST(lengths_in_blocks_equal_the_reference) {
  const std::vector<int64_t> all_lengths[] = {
      {6, 1, 3, 6, 2}, {1, 1, 1, 1, 1}, {1, 2, 3, 4, 5}, {5, 4, 3, 2, 1}};
  for (Precision precision : kBlockPrecisions)
    for (int64_t proj : {0, 4})
      for (const auto &lengths : all_lengths) {
        WITH("precision ", precision_name(precision), " proj ", proj, " lengths from ", lengths[0],
             ", ", lengths[1]);
        const TypedShape shape = shape_of(7, 17, proj, 2, 2, precision);
        check_stack(in_blocks(random_stack(shape, Weights::any, 77), {8, 4}, 0.5f), 6, 5, lengths);
      }
}

// A row is lost by what it holds, not by what the weights make of it.
TEST(a_pruned_column_loses_its_row) {
  for (Precision precision : kBlockPrecisions)
    for (float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
          -std::numeric_limits<float>::infinity()}) {
      WITH("precision ", precision_name(precision), " bad ", bad);
      const TypedShape shape = shape_of(9, 17, 0, 1, 1, precision);
      const auto packed = in_blocks(random_stack(shape, Weights::any, 78), {8, 4}, 0.0f).packed();
      const Sequence good = random_sequence(shape, 3, 4, 79);
      for (auto member : {&Sequence::x, &Sequence::h0, &Sequence::c0}) {
        const int64_t columns = member == &Sequence::x ? shape.input_size : shape.hidden_size;
        Sequence changed = good;
        (changed.*member)[static_cast<size_t>(2 * columns + 6)] = bad; // row 2
        for_each_isa([&](std::string_view) {
          const Result expected = forward(packed, good), found = forward(packed, changed);
          for (int64_t row = 0; row < good.B; ++row) {
            WITH("row ", row);
            if (row != 2) {
              check_same(found.row(good, row, 3), expected.row(good, row, 3));
              continue;
            }
            for (float y : found.row(good, row, 3).y)
              CHECK(y != y);
          }
        });
      }
    }
}

} // namespace
} // namespace lstm_fastkernels
