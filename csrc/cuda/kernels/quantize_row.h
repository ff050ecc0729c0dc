// Quantizing a row with a warp.
#pragma once

#include <cmath>

#include "common/half.h"
#include "common/numerics.h"
#include "cuda/kernels/device.h"
#include "cuda/kernels/rows.h"

namespace lstm_fastkernels {
namespace cuda {

constexpr int kLanes = 32;

// Of what is not negative: such floats are in the order of their bits.
LFK_DEVICE float largest_magnitude(float m) {
  return float_of(
      static_cast<uint32_t>(device::largest_of_lanes(static_cast<int32_t>(bits_of(m)))));
}

template <Arithmetic F>
LFK_DEVICE void store_activation(uint8_t *row, int64_t i, float value, const RowQuantizer &to) {
  if constexpr (F == Arithmetic::float32)
    reinterpret_cast<float *>(row)[i] = value;
  else if constexpr (F == Arithmetic::signed16)
    reinterpret_cast<int16_t *>(row)[i] = static_cast<int16_t>(to(value));
  else
    row[i] = static_cast<uint8_t>(to(value));
}

// Quantizes value(0) .. value(columns - 1) into a row, which becomes NaN if a value is not finite
// or `extra_finite` is false.
template <Arithmetic F, class Value>
LFK_DEVICE void quantize_row(const RowTarget &target, bool extra_finite, const QuantizedRows &out,
                             int64_t row, const Value &value) {
  float lo = 0.0f, hi = 0.0f;
  bool finite = extra_finite;
  for (int i = device::lane(); i < target.columns; i += kLanes) {
    const float v = value(i);
    finite = finite && std::isfinite(v);
    lo = v < lo ? v : lo;
    hi = v > hi ? v : hi;
  }
  finite = !device::any_lane(!finite);
  const RowQuantizer to = quantizer(-largest_magnitude(-lo), largest_magnitude(hi), finite,
                                    target.kind, has_zero_points(F), target.activation_max);
  uint8_t *q = out.data + row * out.stride;
  const int padded = static_cast<int>(out.stride) / activation_bytes(F);
  for (int i = device::lane(); i < padded; i += kLanes)
    store_activation<F>(q, i, finite && i < target.columns ? value(i) : 0.0f, to);
  if (device::lane() == 0) {
    out.scales[row] = F == Arithmetic::float32 && finite ? 1.0f : to.scale;
    out.zero_points[row] = to.zero_point;
  }
}

} // namespace cuda
} // namespace lstm_fastkernels
