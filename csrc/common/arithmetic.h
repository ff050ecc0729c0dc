// The forms of a matrix's products, and their types' bytes.
#pragma once

#include <cstdint>

#include "common/host_device.h"

namespace lstm_fastkernels {

// How a matrix's products are formed; chosen at pack time, proven from the weights.
enum class Arithmetic : uint32_t {
  offset8 = 0,  // activations offset by 128 to u8: exact in vpmaddubsw as the weights are pair-safe
  signed8 = 1,  // |activation| as u8 times weight with the activation's sign: exact for any weights
  signed16 = 2, // 16-bit activations times sign-extended weights
  float32 = 3,  // float32 weights and activations, summed by fma in the order of columns
};

LFK_HOST_DEVICE constexpr int activation_bytes(Arithmetic arithmetic) {
  return arithmetic == Arithmetic::float32 ? 4 : arithmetic == Arithmetic::signed16 ? 2 : 1;
}
constexpr int weight_bytes(Arithmetic arithmetic) {
  return arithmetic == Arithmetic::float32 ? 4 : 1;
}

} // namespace lstm_fastkernels
