// The packed form of a stack for CUDA devices: the header and records of packed_stack.h and the
// matrices of device_matrix.h, at multiples of 64 bytes.
#pragma once

#include <cstddef>
#include <vector>

#include "cuda/kernels/device_matrix.h"
#include "lstm_fastkernels/cuda.h"

namespace lstm_fastkernels {
namespace cuda {

struct PackedLayer {
  DeviceMatrix ih, hh, hr;
  const float *bias = nullptr; // [bands of ih][16]
};

struct PackedStack {
  LstmShape shape;
  std::vector<PackedLayer> layers; // [layer * num_directions + direction]

  // As DeviceStack's constructor.
  PackedStack(const void *header, size_t header_bytes, const void *packed, size_t packed_bytes);
};

} // namespace cuda
} // namespace lstm_fastkernels
