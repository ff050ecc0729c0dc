// What pack refuses of a caller's matrices, by name: blocks that are none, indices that lead out of
// the matrix, weights in the padding, numbers that cannot be computed with.
#include <limits>

#include "check.h"
#include "stack.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Blocks of 8 x 4, every one held: 2 block rows a gate of 9 units, 2, 1 and 3 blocks a block row of
// ih, hh and hr in the first layer. All of them have padding in the last row and column.
HeldStack good(Precision precision, BlockShape block = {8, 4}) {
  SourceStack stack = random_stack(shape_of(5, 9, 3, 2, 2, precision), Weights::any, 61);
  stack.for_each_matrix([&](SourceMatrix &m) {
    m.block = block;
    m.explicit_zeros = true;
  });
  return stack.held();
}

void check_refused(const HeldStack &bad, const std::string &part) {
  const auto layers = bad.views();
  CHECK_THROWS(PackPlan(bad.shape, layers.data()), part);
}

// Refused after change(matrix), whichever it is, with its name and `part` in the message.
template <class Change>
void check_each_refused(const HeldStack &stack, const Change &change, const std::string &part) {
  const char *const suffixes[] = {"_l0", "_l0_reverse", "_l1", "_l1_reverse"};
  const std::pair<const char *, HeldMatrix HeldLayer::*> matrices[] = {
      {"weight_ih", &HeldLayer::ih}, {"weight_hh", &HeldLayer::hh}, {"weight_hr", &HeldLayer::hr}};
  for (size_t i = 0; i < stack.layers.size(); ++i)
    for (const auto &[name, member] : matrices) {
      HeldStack bad = stack;
      change(bad.layers[i].*member);
      check_refused(bad, std::string(name) + suffixes[i] + part);
    }
}

// Of any kind of weights; change(matrix).
template <class Change> void check_blocks_refused(const Change &change, const std::string &part) {
  for (Precision precision : kBlockPrecisions) {
    WITH("precision ", precision_name(precision));
    good(precision).packed();
    check_each_refused(good(precision), change, part);
  }
}

TEST(bad_block_shapes_are_refused) {
  const BlockShape shapes[] = {{0, 4}, {-8, 4}, {7, 4}, {12, 4}, {1, 1},
                               {8, 0}, {8, -4}, {8, 3}, {8, 6},  {0, 0}};
  for (const BlockShape &shape : shapes) {
    WITH("block ", shape.rows, " x ", shape.columns);
    check_blocks_refused([&](HeldMatrix &m) { m.block = shape; },
                         ": blocks must have a multiple of 8 rows and a multiple of 4 columns");
  }
}

TEST(bad_block_row_starts_are_refused) {
  for (int32_t first : {1, -1})
    check_blocks_refused([&](HeldMatrix &m) { m.crow.front() = first; },
                         "_crow_indices must start with 0");
  // Of the first block row: beyond the second one's end, before its start, beyond all blocks.
  check_blocks_refused([](HeldMatrix &m) { m.crow[1] = -1; }, "_crow_indices must not decrease");
  for (int32_t more : {1, std::numeric_limits<int32_t>::max() / 2})
    check_blocks_refused(
        [&](HeldMatrix &m) { m.crow[1] = static_cast<int32_t>(m.col.size()) + more; },
        "_crow_indices must not decrease nor exceed");
  check_blocks_refused([](HeldMatrix &m) { --m.crow.back(); }, "_crow_indices must");
  check_blocks_refused([](HeldMatrix &m) { ++m.crow.back(); }, "_crow_indices must not decrease");
  check_blocks_refused(
      [](HeldMatrix &m) {
        m.col.push_back(0);
        m.integers.resize(m.integers.size() + 32);
        m.floats.resize(m.floats.size() + 32);
      },
      "_crow_indices must end with the number of blocks");
}

TEST(decreasing_block_row_starts_are_refused) {
  for (Precision precision : kBlockPrecisions) {
    HeldStack bad = good(precision);
    std::swap(bad.layers[2].hh.crow[2], bad.layers[2].hh.crow[3]);
    check_refused(bad, "weight_hh_l1_crow_indices must not decrease");
  }
}

TEST(block_columns_out_of_range_are_refused) {
  for (int32_t column :
       {-1, std::numeric_limits<int32_t>::min(), 1000, std::numeric_limits<int32_t>::max()})
    check_blocks_refused([&](HeldMatrix &m) { m.col.back() = column; },
                         "_col_indices must be in 0..");
  // The first column past the last one, by matrix.
  for (Precision precision : kBlockPrecisions) {
    HeldStack bad = good(precision);
    bad.layers[0].ih.col[1] = 2;
    check_refused(bad, "weight_ih_l0_col_indices must be in 0..1, got 2, block 1 of block row 0");
  }
}

TEST(block_columns_that_do_not_increase_are_refused) {
  for (Precision precision : kBlockPrecisions)
    for (int32_t first : {1, 2}) { // repeated, decreasing
      HeldStack bad = good(precision);
      bad.layers[1].hr.col = {first, 1, 2};
      check_refused(bad, "weight_hr_l0_reverse_col_indices must increase within a block row");
      bad = good(precision);
      bad.layers[3].ih.col[2] = 1; // of the second block row
      bad.layers[3].ih.col[3] = 2 - first;
      check_refused(bad, "weight_ih_l1_reverse_col_indices must increase within a block row");
    }
}

// Element i from the end of the last block.
void mark(HeldMatrix &m, size_t i) {
  if (m.scales.empty())
    m.floats[m.floats.size() - 1 - i] = 1e-40f;
  else
    m.integers[m.integers.size() - 1 - i] = 1;
}

TEST(weights_in_the_padding_are_refused) {
  const std::string part = "_values must be zero in the padding, block ";
  check_blocks_refused([](HeldMatrix &m) { mark(m, 0); }, part); // of the last row
  // Of the row after the last one and the first column, wherever a gate or a projection ends.
  for (Precision precision : kBlockPrecisions) {
    HeldStack bad = good(precision);
    mark(bad.layers[0].ih, 8 * 4 + 7 * 4 - 1); // row 1 of 8 in column 0, of the block before
    check_refused(bad, "weight_ih_l0" + part);
    bad = good(precision);
    mark(bad.layers[2].hr, 5 * 4 - 1);
    check_refused(bad, "weight_hr_l1" + part);
  }
}

TEST(weights_in_padding_columns_are_refused) {
  for (Precision precision : kBlockPrecisions) {
    HeldStack bad = good(precision);
    HeldMatrix &m = bad.layers[0].ih; // 5 columns; row 0 of its first block row is no padding
    if (precision == kFloat32)
      m.floats[8 * 4 + 1] = 1;
    else
      m.integers[8 * 4 + 1] = 1;
    check_refused(bad, "weight_ih_l0_values must be zero in the padding, block 1 of block row 0");
  }
}

TEST(padding_of_larger_blocks_is_refused) {
  for (const BlockShape &block : kBlockShapes)
    for (Precision precision : kBlockPrecisions) {
      WITH("rows a block ", block.rows, " precision ", precision_name(precision));
      good(precision, block).packed();
      check_each_refused(
          good(precision, block), [](HeldMatrix &m) { mark(m, 0); }, "_values must be zero");
    }
}

template <class Change>
void check_weights_refused(Precision precision, const Change &change, const std::string &part) {
  WITH("precision ", precision_name(precision));
  check_each_refused(good(precision), change, part);
  check_each_refused(random_stack(shape_of(5, 9, 3, 2, 2, precision), Weights::any, 62).held(),
                     change, part);
}

TEST(bad_scales_are_refused) {
  for (Precision precision : {kInt8, kInt16}) {
    for (float bad : {kNan, kInfinity, -kInfinity, -1.0f, -1e-40f})
      check_weights_refused(
          precision, [&](HeldMatrix &m) { m.scales.back() = bad; },
          ": scales must be finite and not negative, row ");
  }
}

TEST(floats_that_are_not_finite_are_refused) {
  for (float bad : {kNan, -kNan, kInfinity, -kInfinity})
    check_weights_refused(
        kFloat32, [&](HeldMatrix &m) { m.floats.front() = bad; },
        ": weights must be finite, row 0 is not");
}

TEST(biases_that_are_not_finite_are_refused) {
  for (Precision precision : kBlockPrecisions)
    for (float bad : {kNan, kInfinity, -kInfinity}) {
      HeldStack stack = good(precision);
      stack.layers[3].bias.back() = bad;
      check_refused(stack, "bias_l1_reverse must be finite, row 35 is not");
    }
}

} // namespace
} // namespace lstm_fastkernels
