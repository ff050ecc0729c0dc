// Activation rows in a kernel's own encoding, in memory of exactly their size.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/kernels.h"

namespace lstm_fastkernels {

inline float decode(const uint8_t *q, int64_t i, Arithmetic arithmetic) {
  if (arithmetic == Arithmetic::float32)
    return read<float>(q, i);
  if (arithmetic == Arithmetic::signed16)
    return read<int16_t>(q, i);
  return static_cast<float>(arithmetic == Arithmetic::offset8 ? q[i] - 128
                                                              : static_cast<int8_t>(q[i]));
}

inline void encode(uint8_t *q, int64_t i, Arithmetic arithmetic, int32_t value) {
  if (arithmetic == Arithmetic::float32) {
    const auto real = static_cast<float>(value);
    std::memcpy(q + 4 * i, &real, sizeof real);
  } else if (arithmetic == Arithmetic::signed16) {
    const auto wide = static_cast<int16_t>(value);
    std::memcpy(q + 2 * i, &wide, sizeof wide);
  } else {
    q[i] = static_cast<uint8_t>(arithmetic == Arithmetic::offset8 ? value + 128 : value);
  }
}

// Rows of scale 1 with zeros behind the last column, as quantize_row leaves them.
class HeldRows {
public:
  HeldRows(Arithmetic arithmetic, const std::vector<std::vector<int32_t>> &values)
      : HeldRows(arithmetic, static_cast<int64_t>(values.size()),
                 static_cast<int64_t>(values.front().size())) {
    for (size_t row = 0; row < values.size(); ++row)
      for (size_t k = 0; k < values[row].size(); ++k)
        encode(data_.data() + static_cast<int64_t>(row) * stride_, static_cast<int64_t>(k),
               arithmetic, values[row][k]);
  }
  HeldRows(Arithmetic arithmetic, int64_t rows, int64_t columns)
      : stride_(activation_row_bytes(arithmetic, columns)),
        data_(static_cast<size_t>(rows * stride_)), scales_(static_cast<size_t>(rows), 1.0f) {
    for (int64_t i = 0; i < rows * stride_ / activation_bytes(arithmetic); ++i)
      encode(data_.data(), i, arithmetic, 0);
  }

  ActivationRows view() { return {data_.data(), stride_, scales_.data()}; }
  const std::vector<uint8_t> &data() const { return data_; }
  std::vector<float> &scales() { return scales_; }

private:
  int64_t stride_;
  std::vector<uint8_t> data_;
  std::vector<float> scales_;
};

// A step over buffers that the test holds; h is quantized for hh itself.
inline StepArguments step_arguments(const Matrix &hh, int64_t rows, const ActivationRows &h_in,
                                    const float *gates, float *c, float *h,
                                    const ActivationRows &h_out) {
  StepArguments a;
  a.rows = rows;
  a.h_in = h_in;
  a.input_gates = gates;
  a.c = c;
  a.h = h;
  a.h_out = h_out;
  a.h_out_arithmetic = hh.arithmetic;
  a.h_out_max = hh.activation_max;
  std::fill_n(h_out.scales, rows, 1.0f / static_cast<float>(a.h_out_max));
  return a;
}

} // namespace lstm_fastkernels
