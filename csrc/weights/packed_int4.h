// 4-bit weights: as a caller has them, and in the tiles of packed.h.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "weights/packed.h"

namespace lstm_fastkernels {

// What stands for a weight of zero in a tile, and what is added to each.
constexpr int kInt4Zero = 8;

// Throws Error, beginning with `what`, for another size.
void check_group_size(int64_t columns, const std::string &what = "");

// The group size that gives rows of `columns` so many scales: the smallest one, which differs in
// nothing. Throws Error, naming the tensor.
int64_t group_size_of(int64_t columns, int64_t scales, const std::string &name);

// Weights of two's complement, two a byte in rows of whole bytes, as int8. Throws Error, naming the
// matrix, where the half that belongs to no column is not zero.
std::vector<int8_t> expand_int4(const uint8_t *weights, int64_t rows, int64_t columns,
                                const std::string &name);

// The byte of a weight in a tile of 32 rows; the low half is that of rows below 16.
inline int64_t int4_byte(int64_t row, int64_t column) {
  return column / 4 * 64 + row % 16 * 4 + column % 4;
}
inline int int4_weight(const uint8_t *tile, int64_t row, int64_t column) {
  const int byte = tile[int4_byte(row, column)];
  return (row < 16 ? byte & 15 : byte >> 4) - kInt4Zero;
}
// Into a place that holds a zero.
inline void write_int4(uint8_t *tile, int64_t row, int64_t column, int weight) {
  tile[int4_byte(row, column)] ^=
      static_cast<uint8_t>(((weight + kInt4Zero) ^ kInt4Zero) << (row < 16 ? 0 : 4));
}
constexpr uint8_t kInt4Zeros = kInt4Zero << 4 | kInt4Zero;

// What a zero point multiplies: each group's sum of weights times its scale, added by fma.
// weight_sum(group) is the sum of a row's weights, scale(group) their scale.
template <class WeightSum, class Scale>
float int4_row_sum(int64_t groups, const WeightSum &weight_sum, const Scale &scale) {
  float sum = 0;
  for (int64_t group = 0; group < groups; ++group)
    sum = std::fma(static_cast<float>(weight_sum(group)), scale(group), sum);
  return sum;
}

} // namespace lstm_fastkernels
