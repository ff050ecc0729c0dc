// The packed form of a stack for CUDA devices: the header and records of packed_stack.h and the
// matrices of device_matrix.h, at multiples of 64 bytes.
#pragma once

#include <cstddef>
#include <vector>

#include "cuda/kernels/device_matrix.h"
#include "lstm_fastkernels/cuda.h"

namespace lstm_fastkernels {
namespace cuda {

// A matrix or, with a rank, the factor U of one, whose other factor is V.
struct FactoredMatrix : DeviceMatrix {
  DeviceMatrix v;
  int64_t rank = 0;

  bool is_low_rank() const { return rank != 0; }
  // What multiplies the rows that the matrix reads.
  const DeviceMatrix &first() const { return is_low_rank() ? v : *this; }
};

struct PackedLayer {
  FactoredMatrix ih, hh, hr;
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
