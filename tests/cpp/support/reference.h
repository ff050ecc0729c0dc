// The numeric contract in plain loops over a caller's own weights: no packing, no tiles, one row at
// a time. Kernels must give its bits.
#pragma once

#include <cstdint>
#include <vector>

#include "common/numerics.h"
#include "stack.h"

namespace lstm_fastkernels {

struct QuantizedRow {
  std::vector<int32_t> values; // less the zero point
  int32_t zero_point = 0;
  float scale = 0.0f;
};

// In 0..255 by the row's range, and in [-max, max] by its largest magnitude, one scale a row.
QuantizedRow reference_quantize8(std::vector<float> v, RowKind kind);
QuantizedRow reference_quantize16(const std::vector<float> &v, RowKind kind, int32_t max);

float reference_tanh(float x);
float reference_sigmoid(float x);

// lengths empty: all rows are sequence.T long. y is zero past a row's length.
Result reference_forward(const SourceStack &stack, const Sequence &sequence,
                         const std::vector<int64_t> &lengths = {});

} // namespace lstm_fastkernels
