// Quantizing a row with a warp.
#pragma once

#include <cmath>

#include "cuda/kernels/device.h"
#include "cuda/kernels/rows.h"
#include "cuda/kernels/values.h"

namespace lstm_fastkernels {
namespace cuda {

constexpr int kLanes = 32;

LFK_DEVICE float largest_of_warp(float m) {
  for (int mask = kLanes / 2; mask > 0; mask /= 2) {
    const float other = device::shuffle_xor(m, mask);
    m = other > m ? other : m;
  }
  return m;
}

// Quantizes value(0) .. value(columns - 1) into a row, which becomes NaN if a value is not finite
// or `extra_finite` is false.
template <Arithmetic F, class Value>
LFK_DEVICE RowScale quantize_row(int columns, float min_absmax, int32_t max, bool extra_finite,
                                 const QuantizedRows &out, int64_t row, const Value &value) {
  float m = min_absmax;
  bool finite = extra_finite;
  for (int i = device::lane(); i < columns; i += kLanes) {
    const float magnitude = std::fabs(value(i));
    finite = finite && std::isfinite(magnitude);
    m = magnitude > m ? magnitude : m;
  }
  finite = !device::any_lane(!finite);
  const RowScale by = scale_row(F == Arithmetic::float32 ? 1.0f : largest_of_warp(m), finite, max);
  uint8_t *q = out.data + row * out.stride;
  const int padded = static_cast<int>(out.stride) / activation_bytes(F);
  for (int i = device::lane(); i < padded; i += kLanes)
    store_quantized<F>(q, i, finite && i < columns ? value(i) : 0.0f, by.inverse, max);
  return by;
}

} // namespace cuda
} // namespace lstm_fastkernels
