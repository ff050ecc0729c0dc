// The rows that a matrix is multiplied with, quantized for it; for a low-rank one by way of V.
#pragma once

#include <cstdint>

#include "common/workspace.h"
#include "kernels/implementations.h"
#include "weights/packed.h"

namespace lstm_fastkernels {

class Operand {
public:
  // Takes memory for `rows` rows of `columns` values. The matrix must live as long.
  Operand(Workspace &memory, const PackedMatrix &matrix, int64_t rows, int64_t columns);

  // Row `row` becomes these values.
  void quantize(const Kernels &kernels, int64_t row, const float *values, RowKind kind) const;
  // The first `count` rows, as the matrix's own products and steps take them.
  const ActivationRows &take(const Kernels &kernels, int64_t count) const;

private:
  const PackedMatrix &matrix_;
  int64_t columns_;
  ActivationRows first_; // for V, or the matrix itself
  float *between_;       // V's products
  ActivationRows second_;
};

} // namespace lstm_fastkernels
