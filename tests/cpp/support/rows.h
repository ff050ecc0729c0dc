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
  HeldRows(Arithmetic arithmetic, const std::vector<std::vector<int32_t>> &values,
           const std::vector<int32_t> &zero_points)
      : HeldRows(arithmetic, static_cast<int64_t>(values.size()),
                 static_cast<int64_t>(values.front().size())) {
    zero_points_ = zero_points;
    for (size_t row = 0; row < values.size(); ++row)
      for (int64_t k = 0; k < stride_ / activation_bytes(arithmetic); ++k) {
        const int32_t value =
            k < static_cast<int64_t>(values[row].size()) ? values[row][static_cast<size_t>(k)] : 0;
        encode(data_.data() + static_cast<int64_t>(row) * stride_, k, arithmetic,
               value + zero_points[row]);
      }
  }
  HeldRows(Arithmetic arithmetic, int64_t rows, int64_t columns)
      : stride_(activation_row_bytes(arithmetic, columns)),
        data_(static_cast<size_t>(rows * stride_)), scales_(static_cast<size_t>(rows), 1.0f),
        zero_points_(static_cast<size_t>(rows)) {}

  ActivationRows view() { return {data_.data(), stride_, scales_.data(), zero_points_.data()}; }

private:
  int64_t stride_;
  std::vector<uint8_t> data_;
  std::vector<float> scales_;
  std::vector<int32_t> zero_points_;
};

// A step over buffers that the test holds.
inline StepArguments step_arguments(int64_t rows, const ActivationRows &h_in, const float *gates,
                                    float *c, float *h) {
  StepArguments a;
  a.rows = rows;
  a.h_in = h_in;
  a.input_gates = gates;
  a.c = c;
  a.h = h;
  return a;
}

} // namespace lstm_fastkernels
