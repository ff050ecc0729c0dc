// Rows of a call, for kernels.
#pragma once

#include <cstdint>

#include "common/arithmetic.h"
#include "common/host_device.h"
#include "common/numerics.h"
#include "cuda/kernels/device_matrix.h"

namespace lstm_fastkernels {
namespace cuda {

// A Schedule in device memory.
struct Rows {
  int64_t batch = 0, time_steps = 0;
  int64_t count = 0;               // of all time steps
  const int64_t *starts = nullptr; // [time_steps]; null: all rows are always active
  const int64_t *order = nullptr;  // [batch]; null: the caller's order

  LFK_HOST_DEVICE int64_t start(int64_t t) const { return starts ? starts[t] : t * batch; }
  // One past the last row of time step t; for t = time_steps, of the last step.
  LFK_HOST_DEVICE int64_t end(int64_t t) const { return t + 1 < time_steps ? start(t + 1) : count; }
  LFK_HOST_DEVICE int64_t caller_row(int64_t row) const { return order ? order[row] : row; }

  // The time step of row n of all time steps' rows.
  LFK_HOST_DEVICE int64_t time_of(int64_t n) const {
    if (!starts)
      return n / batch;
    int64_t begin = 0, end = time_steps; // starts[begin] <= n < starts[end]
    while (end - begin > 1) {
      const int64_t middle = begin + (end - begin) / 2;
      (starts[middle] <= n ? begin : end) = middle;
    }
    return begin;
  }
};

// Quantized activations: rows of integers, or floats, with one scale and zero point a row. Columns
// are padded to whole fragments.
struct QuantizedRows {
  uint8_t *data = nullptr;
  int64_t stride = 0; // bytes from row to row
  float *scales = nullptr;
  int32_t *zero_points = nullptr;

  QuantizedRows from(int64_t row) const {
    return {data + row * stride, stride, scales + row, zero_points + row};
  }
};

// What rows of activations are, and the matrix that they are quantized for.
struct RowTarget {
  RowKind kind = RowKind::any;
  Arithmetic arithmetic = Arithmetic::any8;
  int32_t columns = 0;
  int32_t activation_max = 0;
};

LFK_HOST_DEVICE inline RowTarget target_of(const DeviceMatrix &matrix, RowKind kind) {
  return {kind, matrix.arithmetic(), matrix.num_columns, matrix.activation_max};
}

LFK_HOST_DEVICE constexpr int64_t quantized_bytes(Arithmetic arithmetic, int64_t columns) {
  return (columns + kFragmentColumns - 1) / kFragmentColumns * kFragmentColumns *
         activation_bytes(arithmetic);
}

} // namespace cuda
} // namespace lstm_fastkernels
