// The numeric contract in plain loops over a caller's own weights: no packing, no tiles, one row at
// a time. Kernels must give its bits.
#pragma once

#include <cstdint>
#include <vector>

#include "stack.h"

namespace lstm_fastkernels {

struct QuantizedRow {
  std::vector<int32_t> values;
  float scale;
};

// In [-max, max] by one scale for the row, which magnitudes below `floor` do not lower.
QuantizedRow reference_quantize(const std::vector<float> &v, float floor, int32_t max);

float reference_tanh(float x);
float reference_sigmoid(float x);

// lengths empty: all rows are sequence.T long. y is zero past a row's length.
Result reference_forward(const SourceStack &stack, const Sequence &sequence,
                         const std::vector<int64_t> &lengths = {});

} // namespace lstm_fastkernels
