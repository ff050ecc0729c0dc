// Activation rows in a kernel's own encoding, in memory of exactly their size.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/kernels.h"

namespace lstm_fastkernels {

// Less the zero point.
inline float decode(const uint8_t *q, int64_t i, Arithmetic arithmetic, int32_t zero_point) {
  if (arithmetic == Arithmetic::float32)
    return read<float>(q, i);
  return static_cast<float>((arithmetic == Arithmetic::signed16 ? read<int16_t>(q, i) : q[i]) -
                            zero_point);
}

inline void encode(uint8_t *q, int64_t i, Arithmetic arithmetic, int32_t value) {
  if (arithmetic == Arithmetic::float32) {
    const auto real = static_cast<float>(value);
    std::memcpy(q + 4 * i, &real, sizeof real);
  } else if (arithmetic == Arithmetic::signed16) {
    const auto wide = static_cast<int16_t>(value);
    std::memcpy(q + 2 * i, &wide, sizeof wide);
  } else {
    q[i] = static_cast<uint8_t>(value);
  }
}

// Rows of scale 1, given less their zero points, with zeros behind the last column, as quantize_row
// leaves them.
class HeldRows {
public:
  HeldRows(const Matrix &target, const std::vector<std::vector<int32_t>> &values,
           const std::vector<int32_t> &zero_points)
      : HeldRows(target, static_cast<int64_t>(values.size()),
                 static_cast<int64_t>(values.front().size())) {
    zero_points_ = zero_points;
    const int64_t columns = static_cast<int64_t>(values.front().size());
    const int64_t padded = padded_columns(target.arithmetic, columns);
    for (size_t row = 0; row < values.size(); ++row) {
      uint8_t *const q = data_.data() + static_cast<int64_t>(row) * stride_;
      for (int64_t k = 0; k < padded; ++k)
        encode(q, k, target.arithmetic,
               (k < columns ? values[row][static_cast<size_t>(k)] : 0) + zero_points[row]);
      if (target.arithmetic == Arithmetic::int4)
        end_int4_row(target, q, columns, padded);
    }
  }
  HeldRows(const Matrix &target, int64_t rows, int64_t columns)
      : stride_(activation_row_bytes(target, columns)), data_(static_cast<size_t>(rows * stride_)),
        scales_(static_cast<size_t>(rows), 1.0f), zero_points_(static_cast<size_t>(rows)),
        scratch_(static_cast<size_t>(scratch_bytes(target, rows))) {}

  ActivationRows view() {
    return {data_.data(), stride_, scales_.data(), zero_points_.data(), scratch_.data()};
  }

private:
  // Zeros behind the last column, and 8 times the sum of each group of columns.
  static void end_int4_row(const Matrix &target, uint8_t *q, int64_t columns, int64_t padded) {
    std::fill(q + columns, q + padded, uint8_t{0});
    for (int64_t group = 0; group < target.scale_groups; ++group) {
      int32_t sum = 0;
      for (int64_t k = group * target.scale_columns;
           k < std::min((group + 1) * target.scale_columns, padded); ++k)
        sum += 8 * q[k];
      std::memcpy(q + padded + group * 4, &sum, sizeof sum);
    }
  }

  int64_t stride_;
  std::vector<uint8_t> data_;
  std::vector<float> scales_;
  std::vector<int32_t> zero_points_;
  std::vector<uint8_t> scratch_;
};

// A step over buffers that the test holds.
inline StepArguments step_arguments(const Matrix &hh, int64_t rows, const ActivationRows &h_in,
                                    const float *gates, float *c, float *h) {
  StepArguments a;
  a.rows = rows;
  a.h_in = h_in;
  a.input_gates = {gates, hh.num_tiles * kTileRows};
  a.c = c;
  a.h = h;
  return a;
}

} // namespace lstm_fastkernels
