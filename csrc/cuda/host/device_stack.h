// The packed form of a stack for CUDA devices: the header and records of packed_stack.h and the
// matrices of device_matrix.h, at multiples of 64 bytes.
#pragma once

#include <cstddef>
#include <vector>

#include "cuda/kernels/device_matrix.h"
#include "lstm_fastkernels/cuda.h"
#include "weights/matrix_source.h"

namespace lstm_fastkernels {
namespace cuda {

// What the host knows of a matrix in device memory: also the blocks that it was given in, of no
// rows where it was dense.
struct HostMatrix : DeviceMatrix {
  int64_t block_rows = 0;
  int64_t block_columns = 0;
};

// A matrix or, with a rank, the factor U of one, whose other factor is V.
struct FactoredMatrix : HostMatrix {
  HostMatrix v;
  int64_t rank = 0;

  bool is_low_rank() const { return rank != 0; }
  // What multiplies the rows that the matrix reads.
  const DeviceMatrix &first() const { return is_low_rank() ? v : *this; }
};

struct PackedLayer {
  FactoredMatrix ih, hh, hr;
  const float *bias = nullptr; // [bands of ih][16]
};

// Calls visit(strip, half) for the strips of 8 rows of the source that make the halves of a band;
// the second one may be padding alone.
template <class Visit>
void for_each_strip(const MatrixShape &shape, int64_t band, const Visit &visit) {
  const int64_t tile = band / kBandsPerTile, gate = band % kBandsPerTile;
  for (int64_t half = 0; half < 2; ++half) {
    const int64_t strip = shape.gates ? (2 * tile + half) * kBandsPerTile + gate : 2 * band + half;
    if (strip < shape.num_strips())
      visit(strip, half);
  }
}

struct PackedStack {
  LstmShape shape;
  std::vector<PackedLayer> layers; // [layer * num_directions + direction]

  // As DeviceStack's constructor.
  PackedStack(const void *header, size_t header_bytes, const void *packed, size_t packed_bytes);
};

} // namespace cuda
} // namespace lstm_fastkernels
