// The products of kernels against int64 sums over the caller's own weights. Weights are integers,
// scales 1 and biases 0; activations are the extremes and random ones.
#pragma once

#include "packed.h"
#include "stack.h"

namespace lstm_fastkernels {

// Of 1..20 rows of activations.
void check_products(const SourceMatrix &source, const Matrix &packed, const uint8_t *bias);

// The gates that step must form, handed to a step whose own products are zero, give the same bits.
void check_step(const SourceMatrix &source, const Matrix &hh, int64_t rows);

} // namespace lstm_fastkernels
