// The forms of a matrix's products, and their types' bytes.
#pragma once

#include <cstdint>

#include "common/host_device.h"

namespace lstm_fastkernels {

// How a matrix's products are formed; chosen at pack time, proven from the weights.
enum class Arithmetic : uint32_t {
  pairs8 = 0,   // unsigned 8-bit activations, pair-safe weights: exact in vpmaddubsw
  any8 = 1,     // unsigned 8-bit activations, any weights
  signed16 = 2, // 16-bit activations times sign-extended weights
  float32 = 3,  // float32 weights and activations, summed by fma in the order of columns
};

LFK_HOST_DEVICE constexpr bool has_zero_points(Arithmetic arithmetic) {
  return arithmetic == Arithmetic::pairs8 || arithmetic == Arithmetic::any8;
}

LFK_HOST_DEVICE constexpr int activation_bytes(Arithmetic arithmetic) {
  return arithmetic == Arithmetic::float32 ? 4 : arithmetic == Arithmetic::signed16 ? 2 : 1;
}
constexpr int weight_bytes(Arithmetic arithmetic) {
  return arithmetic == Arithmetic::float32 ? 4 : 1;
}

} // namespace lstm_fastkernels
