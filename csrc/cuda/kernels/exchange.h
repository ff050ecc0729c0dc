// How the blocks of a persistent kernel give each other their share of h after a step. An exchange
// has, beside the constants
//
//   kForm     of the activations, 8 or 16 bits
//   kCluster  whether its blocks must be a cluster
//   kTiles    tiles of a block
//   kGroups   groups of 8 rows that a pass over the columns multiplies together
//
//   begin()             before any block sends
//   send(step, active)  the own share of h after the step, of rows 0 .. active - 1, and which rows
//                       have a NaN
//   receive<kBlocks>(step, pass, first_column, wanted, visit)
//                       h as the step reads it: calls visit(b, group, columns) with a lane's 8
//                       columns of the block of columns first_column + b, for those b < kBlocks
//                       that wanted(b), and for each group of the pass. The first pass also waits
//                       for all other blocks. False, for all lanes of a warp, where patience runs
//                       out
//   end()               before the block returns
//
// Steps count from the kernel's first one. Every block waits for all others in each step, whether
// it wants their columns or not: nobody is more than a step ahead, and two buffers that take turns
// are enough. Who sends h after step k + 1 has all shares of step k; their senders have read those
// of step k - 1, which lay where k + 1 goes.
#pragma once

#include <cmath>

#include "cuda/kernels/device.h"
#include "cuda/kernels/fragments.h"
#include "cuda/kernels/persistent.h"
#include "cuda/kernels/persistent_shared.h"

namespace lstm_fastkernels {
namespace cuda {

// Where a block stands among those of its direction.
template <int kTiles> class BlockPlace {
public:
  LFK_DEVICE explicit BlockPlace(const Matrix &hh) : hh_(hh) {}

  LFK_DEVICE int block() const { return device::block_index().x; }
  // That have tiles.
  LFK_DEVICE int blocks() const { return (hh_.num_tiles + kTiles - 1) / kTiles; }
  LFK_DEVICE int first_tile() const { return block() * kTiles; }
  // Its own; none if it fills up a cluster.
  LFK_DEVICE int tiles() const {
    const int left = hh_.num_tiles - first_tile();
    return left < 0 ? 0 : left < kTiles ? left : kTiles;
  }

private:
  const Matrix &hh_;
};

// Rows of h that are read together.
struct Pass {
  int first;  // its first row
  int sent;   // rows that took the step before; what others read was there when the kernel began
  int active; // rows that take this one
};

// Counts in units of 2^20 ns, about a millisecond: registers are dear where it is used.
class Patience {
public:
  // Called once for each time that a wait finds nothing; true when it has lasted `ns`.
  LFK_DEVICE bool ran_out(uint64_t ns) {
    device::pause();
    if (++polls_ % 64) // not more: those of a cluster's barrier take their time
      return false;
    const auto now = static_cast<uint32_t>(device::global_timer_ns() >> 20);
    if (polls_ == 64)
      start_ = now;
    return now - start_ > (ns >> 20) + 1;
  }

private:
  uint32_t start_ = 0, polls_ = 0;
};

// Scales of the rows whose bits are set become NaN.
LFK_DEVICE void mark_rows(uint32_t low, uint32_t high, float *scales) {
  for (int row = 0; low | high; ++row) {
    if (low & 1)
      scales[row] = NAN;
    low = low >> 1 | high << 31;
    high >>= 1;
  }
}

} // namespace cuda
} // namespace lstm_fastkernels
