// Floats by their bits; float16 and bfloat16 as 16 bits, to and from float32: narrowing rounds to
// nearest, ties to even.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/host_device.h"
#include "lstm_fastkernels/data_type.h"

namespace lstm_fastkernels {

LFK_HOST_DEVICE inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

LFK_HOST_DEVICE inline float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// A loop that compilers vectorize, without branches.
inline bool all_finite(const float *values, int64_t count) {
  uint32_t carry = 0; // out of the exponent where all of its bits are set
  for (int64_t i = 0; i < count; ++i)
    carry |= (bits_of(values[i]) & 0x7fffffffu) + 0x00800000u;
  return (carry & 0x80000000u) == 0;
}

LFK_HOST_DEVICE inline float from_half(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t magnitude = half & 0x7fffu;
  if (magnitude >= 0x7c00)
    return float_of(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
  if (magnitude >= 0x0400)
    return float_of(sign | ((magnitude << 13) + (112u << 23)));
  return float_of(sign | bits_of(static_cast<float>(magnitude) * 0x1p-24f)); // subnormal
}

LFK_HOST_DEVICE inline uint16_t to_half(float value) {
  const uint32_t bits = bits_of(value);
  const uint32_t sign = bits >> 16 & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000)
    return static_cast<uint16_t>(sign | 0x7e00);
  if (magnitude >= 0x477ff000)
    return static_cast<uint16_t>(sign | 0x7c00); // rounds past 65504
  if (magnitude < 0x38800000) {
    // Below the smallest normal half: adding 0.5 leaves the rounded multiple of 2^-24 in the low
    // bits of the sum.
    const float sum = float_of(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (bits_of(sum) - bits_of(0.5f)));
  }
  const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1) - (112u << 23);
  return static_cast<uint16_t>(sign | rounded >> 13);
}

LFK_HOST_DEVICE inline float from_bfloat16(uint16_t value) {
  return float_of(static_cast<uint32_t>(value) << 16);
}

LFK_HOST_DEVICE inline uint16_t to_bfloat16(float value) {
  const uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffff) > 0x7f800000)
    return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

} // namespace lstm_fastkernels
