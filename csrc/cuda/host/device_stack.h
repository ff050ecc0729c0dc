// The packed form of a stack for CUDA devices: the header and records of packed_stack.h and the
// matrices of device_matrix.h, at multiples of 64 bytes.
#pragma once

#include <cstddef>
#include <vector>

#include "cuda/kernels/device_matrix.h"
#include "lstm_fastkernels/cuda.h"

namespace lstm_fastkernels {
namespace cuda {

inline Arithmetic arithmetic_of(Precision precision) {
  return precision.weights == WeightType::float32         ? Arithmetic::float32
         : precision.activations == ActivationType::int16 ? Arithmetic::signed16
                                                          : Arithmetic::signed8;
}

// The sizes of a stack, and the form of all its matrices.
struct DeviceShape : LstmShape {
  Arithmetic arithmetic = Arithmetic::signed8;
};

struct PackedLayer {
  DeviceMatrix ih, hh, hr;
  const float *bias = nullptr; // [bands of ih][16]
};

struct PackedStack {
  DeviceShape shape;
  Arithmetic arithmetic = Arithmetic::signed8; // of all its matrices: they have one precision
  std::vector<PackedLayer> layers;             // [layer * num_directions + direction]

  // As DeviceStack's constructor.
  PackedStack(const void *header, size_t header_bytes, const void *packed, size_t packed_bytes);
};

} // namespace cuda
} // namespace lstm_fastkernels
