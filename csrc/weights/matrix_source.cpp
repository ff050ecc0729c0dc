#include "weights/matrix_source.h"

#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>

#include "common/fail.h"
#include "common/half.h"
#include "common/numerics.h"
#include "weights/packed_int4.h"

namespace lstm_fastkernels {
namespace {

constexpr int64_t kMaxBlock = 65535;
constexpr int32_t kInt32Max = std::numeric_limits<int32_t>::max();

std::string at_block(int64_t block, int64_t block_row) {
  return ", block " + std::to_string(block) + " of block row " + std::to_string(block_row);
}

void check_block_shape(const WeightMatrix &source, const std::string &name) {
  if (source.num_blocks < 0)
    fail(name + ": the number of blocks must not be negative");
  if (!is_block_shape(source.block_rows, source.block_columns))
    fail(name + ": blocks must have a multiple of 8 rows and a multiple of 4 columns, got " +
         std::to_string(source.block_rows) + " x " + std::to_string(source.block_columns));
}

void check_indices(const BlockGrid &grid, const WeightMatrix &source, const std::string &name) {
  const int32_t *crow = source.crow_indices;
  if (crow[0] != 0)
    fail(name + "_crow_indices must start with 0, got " + std::to_string(crow[0]));
  for (int64_t r = 0; r < grid.block_rows(); ++r)
    if (crow[r + 1] < crow[r] || crow[r + 1] > source.num_blocks)
      fail(name + "_crow_indices must not decrease nor exceed the " +
           std::to_string(source.num_blocks) + " blocks, got " + std::to_string(crow[r + 1]) +
           " after " + std::to_string(crow[r]));
  if (crow[grid.block_rows()] != source.num_blocks)
    fail(name + "_crow_indices must end with the number of blocks, " +
         std::to_string(source.num_blocks) + ", got " + std::to_string(crow[grid.block_rows()]));
  for (int64_t r = 0; r < grid.block_rows(); ++r)
    for (int64_t b = crow[r]; b < crow[r + 1]; ++b) {
      const int64_t column = source.col_indices[b];
      if (column < 0 || column >= grid.blocks_a_row)
        fail(name + "_col_indices must be in 0.." + std::to_string(grid.blocks_a_row - 1) +
             ", got " + std::to_string(column) + at_block(b, r));
      if (b > crow[r] && column <= source.col_indices[b - 1])
        fail(name + "_col_indices must increase within a block row, got " + std::to_string(column) +
             " after " + std::to_string(source.col_indices[b - 1]) + at_block(b, r));
    }
}

// Refuses bad blocks and indices, and padding that is not zero.
void check_blocks(const MatrixShape &shape, const WeightMatrix &source, int64_t size,
                  const std::string &name) {
  const BlockGrid grid(shape, source.block_rows, source.block_columns);
  check_indices(grid, source, name);
  const uint8_t *row = static_cast<const uint8_t *>(source.weights);
  for (int64_t r = 0; r < grid.block_rows(); ++r) {
    const int64_t rows = grid.gate_rows - r % grid.block_rows_a_gate * source.block_rows;
    for (int64_t b = source.crow_indices[r]; b < source.crow_indices[r + 1]; ++b) {
      const int64_t columns = std::min(
          source.block_columns, shape.columns - source.col_indices[b] * source.block_columns);
      for (int64_t i = 0; i < source.block_rows; ++i, row += source.block_columns * size) {
        const int64_t valid = i < rows ? columns : 0;
        if (!all_zero(row + valid * size, source.block_columns - valid, size))
          fail(name + "_values must be zero in the padding" + at_block(b, r));
      }
    }
  }
}

} // namespace

bool is_block_shape(int64_t rows, int64_t columns) {
  return rows >= 1 && rows <= kMaxBlock && rows % kStripRows == 0 && columns >= 1 &&
         columns <= kMaxBlock && columns % kBlockColumns == 0;
}

int32_t activation_max(Precision precision, const Proof &proof) {
  if (precision.weights == WeightType::float32 || is_table(precision))
    return 1;
  if (precision.activations != ActivationType::int16)
    return static_cast<int32_t>(kUnsignedMax);
  // The largest for which no sum of products can leave int32.
  const int64_t limit = kInt32Max / std::max<int64_t>(1, proof.max_magnitude);
  return static_cast<int32_t>(std::min<int64_t>(32767, limit));
}

bool all_zero(const uint8_t *weights, int64_t count, int64_t size) {
  if (size == 1)
    return std::all_of(weights, weights + count, [](uint8_t weight) { return weight == 0; });
  for (int64_t i = 0; i < count; ++i)
    if (read<float>(weights, i) != 0.0f)
      return false;
  return true;
}

int64_t count_block_rows(int64_t rows, int64_t gates, int64_t block_rows, const std::string &name) {
  if (block_rows < 1 || block_rows > kMaxBlock)
    fail(name + ": blocks must have 1.." + std::to_string(kMaxBlock) + " rows, got " +
         std::to_string(block_rows));
  return gates * divide_up(rows / gates, block_rows);
}

MatrixSource::MatrixSource(const MatrixShape &shape, const WeightMatrix &source,
                           const std::string &name)
    : shape_(shape), source_(source),
      stride_(source.crow_indices ? source.block_columns : shape.columns) {
  if (is_table(source.precision)) {
    check_table(name);
    return;
  }
  if (is_int4())
    expand(name);
  if (in_blocks()) {
    copy_indices(name);
    check_blocks(shape, source_, weight_bytes(), name);
  }
  if (is_float())
    check_floats(name);
  else
    examine(name);
}

void MatrixSource::copy_indices(const std::string &name) {
  check_block_shape(source_, name);
  const int64_t block_rows = block_grid().block_rows();
  crow_indices_.assign(source_.crow_indices, source_.crow_indices + block_rows + 1);
  col_indices_.assign(source_.col_indices, source_.col_indices + source_.num_blocks);
  source_.crow_indices = crow_indices_.data();
  source_.col_indices = col_indices_.data();
}

void MatrixSource::expand(const std::string &name) {
  if (in_blocks())
    fail(name + ": a matrix of 4-bit weights must be dense");
  check_group_size(source_.group_size, name + ": ");
  expanded_ =
      expand_int4(static_cast<const uint8_t *>(source_.weights), shape_.rows, shape_.columns, name);
  source_.weights = expanded_.data();
}

float MatrixSource::int4_row_sum(int64_t row) const {
  const auto weight_sum = [&](int64_t group) {
    const int8_t *const weights = expanded_.data() + row * shape_.columns;
    return std::accumulate(weights + group * group_size(),
                           weights + std::min((group + 1) * group_size(), shape_.columns), 0);
  };
  const auto scale = [&](int64_t group) { return group_scale(row, group); };
  return lstm_fastkernels::int4_row_sum(scale_groups(), weight_sum, scale);
}

void MatrixSource::examine(const std::string &name) {
  row_sums_.resize(static_cast<size_t>(shape_.rows));
  std::vector<int64_t> magnitudes(row_sums_.size());
  for (int64_t strip = 0; strip < shape_.num_strips(); ++strip)
    for_each_panel(strip, [&](const Panel &panel) {
      for (int64_t i = 0; i < panel.rows; ++i) {
        const int8_t *row = reinterpret_cast<const int8_t *>(panel.weights) + i * stride_;
        const size_t at = static_cast<size_t>(panel.first_row + i);
        for (int64_t k = 0; k < panel.columns; ++k) {
          row_sums_[at] += row[k];
          magnitudes[at] += std::abs(row[k]);
        }
        for (int64_t k = 0; k + 1 < panel.columns; k += 2)
          if (std::abs(row[k] + row[k + 1]) > 128)
            proof_.pair_safe = false;
      }
    });
  for (size_t row = 0; row < row_sums_.size(); ++row)
    proof_.include(row_sums_[row], magnitudes[row]);
  check_scales(name);
}

void MatrixSource::check_scales(const std::string &name) const {
  const int64_t scales_a_row = is_int4() ? scale_groups() : 1;
  for (int64_t i = 0; i < shape_.rows * scales_a_row; ++i)
    if (!std::isfinite(source_.scales[i]) || source_.scales[i] < 0)
      fail(name + ": scales must be finite and not negative, row " +
           std::to_string(i / scales_a_row) + " is not");
  for (int64_t row = 0; is_int4() && row < shape_.rows; ++row)
    if (!std::isfinite(int4_row_sum(row)))
      fail(name + ": scales are too large, row " + std::to_string(row));
}

void MatrixSource::check_floats(const std::string &name) const {
  for (int64_t strip = 0; strip < shape_.num_strips(); ++strip)
    for_each_panel(strip, [&](const Panel &panel) {
      for (int64_t i = 0; i < panel.rows; ++i)
        for (int64_t k = 0; k < panel.columns; ++k)
          if (!std::isfinite(read<float>(panel.weights, i * stride_ + k)))
            fail(name + ": weights must be finite, row " + std::to_string(panel.first_row + i) +
                 " is not");
    });
}

void MatrixSource::check_table(const std::string &name) const {
  if (in_blocks())
    fail(name + ": a table must be dense");
  const auto *const weights = static_cast<const uint8_t *>(source_.weights);
  const bool half = source_.precision.weights == WeightType::float16;
  for (int64_t i = 0; i < shape_.columns * shape_.rows; ++i)
    if (!std::isfinite(half ? from_half(read<uint16_t>(weights, i)) : read<float>(weights, i)))
      fail(name + ": weights must be finite, those of token id " + std::to_string(i / shape_.rows) +
           " are not");
}

bool MatrixSource::is_zero(const Panel &panel, int64_t k) const {
  const int64_t count = std::min<int64_t>(kBlockColumns, panel.columns - k);
  for (int64_t i = 0; i < panel.rows; ++i)
    if (!all_zero(panel.weights + (i * stride_ + k) * weight_bytes(), count, weight_bytes()))
      return false;
  return true;
}

} // namespace lstm_fastkernels
