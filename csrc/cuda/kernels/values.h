// Loads and stores of single values in a caller's types.
#pragma once

#include "common/half.h"
#include "cuda/kernels/device.h"

namespace lstm_fastkernels {
namespace cuda {

LFK_DEVICE float load_value(const void *row, DataType type, int64_t i) {
  if (type == DataType::float32)
    return static_cast<const float *>(row)[i];
  const uint16_t bits = static_cast<const uint16_t *>(row)[i];
  return type == DataType::float16 ? from_half(bits) : from_bfloat16(bits);
}

LFK_DEVICE void store_value(void *row, DataType type, int64_t i, float value) {
  if (type == DataType::float32)
    static_cast<float *>(row)[i] = value;
  else
    static_cast<uint16_t *>(row)[i] =
        type == DataType::float16 ? to_half(value) : to_bfloat16(value);
}

} // namespace cuda
} // namespace lstm_fastkernels
