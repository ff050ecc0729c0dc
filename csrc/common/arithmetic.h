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
  int4 = 4,     // unsigned 8-bit activations, 4-bit weights with a scale for groups of columns
  table32 = 5,  // no products: token ids choose float32 columns
  table16 = 6,  // float16 ones
};

LFK_HOST_DEVICE constexpr bool is_table(Arithmetic arithmetic) {
  return arithmetic == Arithmetic::table32 || arithmetic == Arithmetic::table16;
}

LFK_HOST_DEVICE constexpr bool has_zero_points(Arithmetic arithmetic) {
  return arithmetic != Arithmetic::signed16 && arithmetic != Arithmetic::float32 &&
         !is_table(arithmetic);
}

LFK_HOST_DEVICE constexpr int activation_bytes(Arithmetic arithmetic) {
  return arithmetic == Arithmetic::float32 || is_table(arithmetic) ? 4
         : arithmetic == Arithmetic::signed16                      ? 2
                                                                   : 1;
}
constexpr int weight_bits(Arithmetic arithmetic) {
  switch (arithmetic) {
  case Arithmetic::float32:
  case Arithmetic::table32:
    return 32;
  case Arithmetic::table16:
    return 16;
  case Arithmetic::int4:
    return 4;
  default:
    return 8;
  }
}
// Of those that take whole bytes.
constexpr int weight_bytes(Arithmetic arithmetic) { return weight_bits(arithmetic) / 8; }

} // namespace lstm_fastkernels
