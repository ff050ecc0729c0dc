// How the blocks of a persistent kernel exchange h after a step. An exchange has the constants
//
//   kCluster  whether its blocks are a cluster
//   kTiles    tiles of a block
//
// and the functions
//
//   begin()              called before any block sends
//   send(step, active)   sends this block's h after the step, rows 0 .. active - 1, and which rows
//                        have a NaN
//   collect(step, sent)  h for the step, of which the step before sent so many rows: brings it into
//                        BlockMemory::h_row(step, ...) and adds to row_nans(), for who comes after
//                        the next barrier; waits for all blocks. False, in all lanes of a warp, if
//                        the wait times out
//   end()                called before the block returns
//
// Steps count from the kernel's first one. In each step every block waits for all others. So no
// block is more than a step ahead, and two alternating buffers suffice: a block that sends h after
// step k + 1 has received all of step k; their senders had read step k - 1, whose buffer k + 1
// reuses.
#pragma once

#include "cuda/kernels/device.h"
#include "cuda/kernels/fragments.h"
#include "cuda/kernels/persistent.h"
#include "cuda/kernels/persistent_shared.h"

namespace lstm_fastkernels {
namespace cuda {

// A block's place among the blocks of its direction.
template <int kTiles> class BlockPlace {
public:
  LFK_DEVICE explicit BlockPlace(const DeviceMatrix &hh) : hh_(hh) {}

  LFK_DEVICE int block() const { return device::block_index().x; }
  // Blocks that have tiles.
  LFK_DEVICE int blocks() const { return (hh_.num_tiles + kTiles - 1) / kTiles; }
  LFK_DEVICE int first_tile() const { return block() * kTiles; }
  // This block's tiles; none if it only fills up a cluster.
  LFK_DEVICE int tiles() const {
    const int left = hh_.num_tiles - first_tile();
    return left < 0 ? 0 : left < kTiles ? left : kTiles;
  }

private:
  const DeviceMatrix &hh_;
};

// A time-out. Counts in units of 2^20 ns, about a millisecond, to save registers.
class Patience {
public:
  // To be called after each failed poll; true when the wait has lasted `ns`.
  LFK_DEVICE bool ran_out(uint64_t ns) {
    device::pause();
    if (++polls_ % 64) // no more: polls of a cluster's barrier may block for a while
      return false;
    const auto now = static_cast<uint32_t>(device::global_timer_ns() >> 20);
    if (polls_ == 64)
      start_ = now;
    return now - start_ > (ns >> 20) + 1;
  }

private:
  uint32_t start_ = 0, polls_ = 0;
};

} // namespace cuda
} // namespace lstm_fastkernels
