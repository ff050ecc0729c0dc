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

// Rows whose largest magnitude is below this quantize to zero.
constexpr float kSmallestMagnitude = 1e-30f;

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

// v to an integer in [-max, max], ties to even; 0 where v * inverse_scale is NaN.
LFK_HOST_DEVICE inline int32_t quantize(float v, float inverse_scale, int32_t max) {
  const float limit = static_cast<float>(max);
  const float scaled = std::nearbyint(v * inverse_scale);
  if (std::isnan(scaled))
    return 0;
  return static_cast<int32_t>(scaled < -limit ? -limit : scaled > limit ? limit : scaled);
}

// How a row is quantized whose largest magnitude is m, or at least a floor.
struct RowScale {
  float scale;
  float inverse; // 0: all of the row becomes 0
};

LFK_HOST_DEVICE inline RowScale scale_row(float m, bool finite, int32_t max) {
  if (!finite)
    return {NAN, 0.0f};
  if (m < kSmallestMagnitude)
    return {0.0f, 0.0f};
  return {m / static_cast<float>(max), static_cast<float>(max) / m};
}

} // namespace lstm_fastkernels
