// The persistent path: one launch for many time steps. Each block keeps the recurrent weights of
// its units in registers and their c in shared memory. After each step the blocks exchange h in 16
// bits: within a cluster through distributed shared memory, across the grid through L2. Where W_hh
// has 8-bit activations, these are the 16 bits by way of which bounded rows get there (numerics.h):
// each block makes the 8 bits once it has the whole row.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/kernels/device_matrix.h"
#include "cuda/kernels/device_types.h"
#include "cuda/kernels/plain_kernels.h"
#include "cuda/kernels/rows.h"

namespace lstm_fastkernels {
namespace cuda {

constexpr int kPersistentRows = 64; // of a block, at most
constexpr int kPersistentWarps = 8; // of a block; each has an eighth of the columns
constexpr int kPersistentThreads = kPersistentWarps * 32;
constexpr int kLargestCluster = 16;
// Tiles of a block in a cluster; limited by accumulator registers.
constexpr int most_cluster_tiles(Arithmetic arithmetic) {
  return arithmetic == Arithmetic::any8 ? 3 : 2;
}
constexpr int kMostFragments = 8;                // of each band in a warp's registers
constexpr int64_t kMostSteps = int64_t{1} << 30; // of a launch

// Which instance of the kernel, and how it is launched.
struct PersistentShape {
  Arithmetic arithmetic = Arithmetic::any8;
  bool cluster = false;
  int tiles = 1;     // of a block
  int fragments = 1; // of each band in a warp's registers
  int grid = 1;      // blocks of each direction and range; in a cluster, some may have no units
  // The batch is split into ranges of rows. Each has its own blocks; all ranges run concurrently.
  int ranges = 1;
  int rows = 0; // of each range; the last may have fewer

  bool operator==(const PersistentShape &o) const {
    return arithmetic == o.arithmetic && cluster == o.cluster && tiles == o.tiles &&
           fragments == o.fragments && grid == o.grid && ranges == o.ranges && rows == o.rows;
  }
};

// What blocks exchange: rows of integers in [-A, A].
LFK_HOST_DEVICE inline RowTarget exchanged_target(const DeviceMatrix &hh) {
  return {RowKind::bounded, Arithmetic::signed16, hh.num_columns,
          hh.arithmetic() == Arithmetic::any8 ? static_cast<int32_t>(kGridMax) : hh.activation_max};
}

// A range of rows of one direction.
struct PersistentArguments {
  Rows rows;
  int64_t row_begin = 0;
  int32_t num_rows = 0;
  DeviceMatrix hh;
  int64_t begin = 0, end = 0; // steps in the direction of travel, at most kMostSteps
  int32_t reverse = 0;
  int32_t fragments = 1; // as in PersistentShape
  int32_t hidden_size = 0;
  // From the range's first row on.
  QuantizedRows h;                       // before the first step, as exchanged_target() says
  float *c = nullptr, *last_h = nullptr; // [num_rows][units_stride]
  int64_t units_stride = 0;
  // Of all rows.
  const float *input_gates = nullptr; // of rows from first_row on, contiguous
  int64_t first_row = 0;
  Plane y;
  device::Words4 *packets = nullptr; // of the range; unused in a cluster
  uint32_t epoch = 0;                // steps that went through `packets` before
  uint32_t *failed = nullptr;        // set to 1 if a wait times out
  uint64_t patience_ns = 0;
};

// Packets of a range. A call starts with all of them zero.
int64_t range_packets(const DeviceMatrix &hh, int rows);

// Shared memory of a block.
size_t shared_bytes(const PersistentShape &shape, const DeviceMatrix &hh);

// How many blocks, or clusters, of a shape are resident on a device at once. Asks the driver once.
int most_at_once(const PersistentShape &shape, const DeviceMatrix &hh, int device);

// Runs steps begin .. end - 1: c, last_h and y become what as many calls of step() make them.
void run_persistent(const PersistentShape &shape, const SideBySide<PersistentArguments> &arguments,
                    void *stream);

} // namespace cuda
} // namespace lstm_fastkernels
