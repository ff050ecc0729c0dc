// The constants of the numeric contract.
//
// tanh(x) ~ x P(x^2) / Q(x^2) on [-9, 9]: minimax in absolute error (Lawson's weighted least
// squares in extended precision), 1.2e-8 before and 3.2e-7 after rounding to float32, exactly +-1
// from 9 on. sigmoid(x) = 0.5 tanh(0.5 x) + 0.5. Every backend evaluates it in the same order, by
// Horner with fma: that is what makes outputs bit-identical.
#pragma once

namespace lstm_fastkernels {

constexpr float kTanhLimit = 9.0f;
constexpr float kTanhP[5] = {0x1.fffffep-1f, 0x1.126cecp-3f, 0x1.cd1dbep-9f, 0x1.602d1cp-16f,
                             0x1.de0652p-27f};
constexpr float kTanhQ[5] = {1.0f, 0x1.de8bbap-2f, 0x1.a95af2p-6f, 0x1.5c6df2p-12f,
                             0x1.ad6c6ap-21f};

// Rows whose largest magnitude is below this quantize to zero.
constexpr float kSmallestMagnitude = 1e-30f;

} // namespace lstm_fastkernels
