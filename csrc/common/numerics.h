// The numeric contract: its constants, and its operations on one value in their one order. The
// reference and the CUDA kernels call these functions, the vector kernels spell them out; outputs
// are bit-identical. Compile without contraction of a * b + c.
//
// tanh(x) ~ x P(x^2) / Q(x^2) on [-9, 9]: minimax in absolute error (Lawson's weighted least
// squares in extended precision), 1.2e-8 before and 3.2e-7 after rounding to float32, exactly +-1
// from 9 on. sigmoid(x) = 0.5 tanh(0.5 x) + 0.5. Both by Horner with fma.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/host_device.h"

namespace lstm_fastkernels {

constexpr float kTanhLimit = 9.0f;
constexpr float kTanhP[5] = {0x1.fffffep-1f, 0x1.126cecp-3f, 0x1.cd1dbep-9f, 0x1.602d1cp-16f,
                             0x1.de0652p-27f};
constexpr float kTanhQ[5] = {1.0f, 0x1.de8bbap-2f, 0x1.a95af2p-6f, 0x1.5c6df2p-12f,
                             0x1.ad6c6ap-21f};

// Rows whose largest magnitude, for 16 bits, or scale, for 8, is below this quantize to zero.
constexpr float kSmallestMagnitude = 1e-30f;
constexpr float kSmallestScale = 0x1p-100f;

constexpr float kUnsignedMax = 255; // of 8-bit activations
constexpr float kGridMax = 32767;   // of the 16 bits by way of which bounded rows get there

// c[0] + c[1] z + ... + c[4] z^4.
LFK_HOST_DEVICE inline float horner(float c0, float c1, float c2, float c3, float c4, float z) {
  return std::fma(std::fma(std::fma(std::fma(c4, z, c3), z, c2), z, c1), z, c0);
}

// The steps of quotient() after an estimate of 1 / b that is off by at most a unit in the last
// place. Markstein (IBM J. Res. Dev. 34, 1990): a residual that fma leaves exact corrects a
// quotient to the rounding of IEEE division.
LFK_HOST_DEVICE inline float corrected_quotient(float a, float b, float reciprocal) {
  const float r = std::fma(reciprocal, std::fma(-b, reciprocal, 1.0f), reciprocal);
  const float q = a * r;
  return std::fma(r, std::fma(-b, q, a), q);
}

// a / b as IEEE has it, for b of 1 and more and moderate a, and for any a where b is 1. A GPU
// divides by a function for all operands, which it calls where these are unusual: its branches keep
// the gates of a unit from being computed side by side.
LFK_HOST_DEVICE inline float quotient(float a, float b) {
#if defined(__CUDA_ARCH__)
  float reciprocal;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(b));
  return b == 1.0f ? a : corrected_quotient(a, b, reciprocal);
#else
  return a / b;
#endif
}

LFK_HOST_DEVICE inline float tanh_approx(float x) {
  x = x < -kTanhLimit ? -kTanhLimit : x; // written so that NaN stays NaN
  x = x > kTanhLimit ? kTanhLimit : x;
  const float z = x * x;
  const float p = horner(kTanhP[0], kTanhP[1], kTanhP[2], kTanhP[3], kTanhP[4], z);
  const float q = horner(kTanhQ[0], kTanhQ[1], kTanhQ[2], kTanhQ[3], kTanhQ[4], z);
  const float t = quotient(x * p, q); // q is 1 where the numerator is small
  return t < -1.0f ? -1.0f : t > 1.0f ? 1.0f : t;
}

LFK_HOST_DEVICE inline float sigmoid_approx(float x) {
  return std::fma(0.5f, tanh_approx(0.5f * x), 0.5f);
}

// From the four gates of a unit: c in place, and o tanh(c).
LFK_HOST_DEVICE inline float update_cell(const float (&gates)[4], float &c) {
  c = std::fma(sigmoid_approx(gates[1]), c, sigmoid_approx(gates[0]) * tanh_approx(gates[2]));
  return sigmoid_approx(gates[3]) * tanh_approx(c);
}

// To the nearest integer, ties to even, for less than 2^22: what is added leaves no room for more.
// A float, or a vector of them.
template <class Value> LFK_HOST_DEVICE Value round_to_integer(Value value) {
  return (value + 0x1.8p23f) - 0x1.8p23f;
}

// What a row of activations is: `bounded` ones are o tanh(c) and what carries it from call to call,
// within [-1, 1] unless a caller's h0 is not.
enum class RowKind { any, bounded };

// How the values of a row become integers: u = rint(v * grid), or v where grid is 0;
// q = clamp(rint(u * inverse) + zero_point, least, most), ties to even.
struct RowQuantizer {
  float scale; // a value is about (q - zero_point) * scale; NaN if one is not finite
  float grid;
  float inverse; // 0: every q is 0
  int32_t zero_point;
  int32_t least, most;

  LFK_HOST_DEVICE int32_t operator()(float v) const {
    const float u = grid == 0.0f ? v : round_to_integer(v * grid);
    const int32_t q = static_cast<int32_t>(round_to_integer(u * inverse)) + zero_point;
    return q < least ? least : q > most ? most : q;
  }
};

// For a row of values lo..hi with 0 among them, all finite or not. Where `max` is A of the 16-bit
// contract q is in [-A, A]; where it is kUnsignedMax q is in 0..255 with a zero point. Bounded rows
// go to 8 bits by way of 16: what blocks of a GPU can exchange before they know the row's range.
LFK_HOST_DEVICE inline RowQuantizer quantizer(float lo, float hi, bool finite, RowKind kind,
                                              bool unsigned8, int32_t max) {
  const float largest = hi > -lo ? hi : -lo;
  const float bound = largest > 1.0f ? largest : 1.0f;
  if (!finite)
    return {NAN, 0.0f, 0.0f, 0, 0, 0};
  if (!unsigned8) {
    const float m = kind == RowKind::bounded ? bound : largest, limit = static_cast<float>(max);
    if (m < kSmallestMagnitude)
      return {0.0f, 0.0f, 0.0f, 0, 0, 0};
    return {m / limit, 0.0f, limit / m, 0, -max, max};
  }
  float grid = 0.0f, unit = 1.0f;
  if (kind == RowKind::bounded) {
    grid = kGridMax / bound;
    unit = bound / kGridMax;
    lo = round_to_integer(lo * grid);
    hi = round_to_integer(hi * grid);
  }
  const float s = hi / kUnsignedMax - lo / kUnsignedMax;
  if (s < kSmallestScale)
    return {0.0f, 0.0f, 0.0f, 0, 0, 0};
  const float inverse = 1.0f / s;
  return {s * unit, grid,
          inverse,  static_cast<int32_t>(round_to_integer(-lo * inverse)),
          0,        static_cast<int32_t>(kUnsignedMax)};
}

} // namespace lstm_fastkernels
