// The products of kernels against int64 sums over the caller's own weights. Weights are integers,
// scales 1, but for int4, and biases 0; activations are the extremes and random ones.
#pragma once

#include "stack.h"
#include "weights/packed.h"

namespace lstm_fastkernels {

using Pattern = int (*)(int64_t row, int64_t k);

inline const Pattern kPairSafe[] = {
    [](int64_t, int64_t k) { return k % 2 ? 1 : 127; },
    [](int64_t, int64_t k) { return k % 2 ? -127 : -1; },
    [](int64_t row, int64_t k) { return (row + k) % 2 ? 127 : -128; },
    [](int64_t row, int64_t k) { return static_cast<int>((row * 31 + k * 17) % 129) - 64; },
};
inline const Pattern kAny[] = {
    [](int64_t, int64_t) { return 127; },
    [](int64_t, int64_t) { return -128; },
    [](int64_t row, int64_t k) { return (row + k / 2) % 2 ? 127 : -128; },
    [](int64_t row, int64_t k) { return static_cast<int>((row * 31 + k * 17) % 256) - 128; },
};

inline const Pattern kInt4Patterns[] = {
    [](int64_t, int64_t) { return 7; },
    [](int64_t, int64_t) { return -8; },
    [](int64_t row, int64_t k) { return (row + k / 2) % 2 ? 7 : -8; },
    [](int64_t row, int64_t k) { return static_cast<int>((row * 31 + k * 17) % 16) - 8; },
};

// Weights by a pattern, as integers also where they are float32.
SourceStack patterned_stack(const TypedShape &shape, Pattern pattern);

// Of 1..20 rows of activations.
void check_products(const SourceMatrix &source, const Matrix &packed, const uint8_t *bias);

// The gates that step must form, handed to a step whose own products are zero, give the same bits.
void check_step(const SourceMatrix &source, const Matrix &hh, int64_t rows);

} // namespace lstm_fastkernels
