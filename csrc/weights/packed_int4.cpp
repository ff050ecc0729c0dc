#include "weights/packed_int4.h"

#include "common/fail.h"

namespace lstm_fastkernels {

void check_group_size(int64_t columns, const std::string &what) {
  if (!is_group_size(columns))
    fail(what + "groups must have 32, 64 or 128 columns, got " + std::to_string(columns));
}

int64_t group_size_of(int64_t columns, int64_t scales, const std::string &name) {
  for (const int64_t size : {32, 64, 128})
    if (divide_up(columns, size) == scales)
      return size;
  fail(name + ": " + std::to_string(scales) +
       " scales a row are not those of groups of 32, 64 or " + "128 among " +
       std::to_string(columns) + " columns");
}

std::vector<int8_t> expand_int4(const uint8_t *weights, int64_t rows, int64_t columns,
                                const std::string &name) {
  const int64_t row_bytes = divide_up(columns, 2);
  std::vector<int8_t> expanded(static_cast<size_t>(rows * columns));
  int8_t *to = expanded.data();
  for (int64_t row = 0; row < rows; ++row, weights += row_bytes) {
    for (int64_t k = 0; k < columns; ++k) {
      const int half = weights[k / 2] >> (k % 2 ? 4 : 0) & 15;
      *to++ = static_cast<int8_t>(half < 8 ? half : half - 16);
    }
    if (columns % 2 && weights[row_bytes - 1] >> 4)
      fail(name + ": the half byte behind the last column must be zero, row " +
           std::to_string(row) + " has another");
  }
  return expanded;
}

} // namespace lstm_fastkernels
