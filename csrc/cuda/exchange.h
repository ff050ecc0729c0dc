// How the blocks of a persistent kernel give each other their share of h after a step.
//
// A block sends rows 0 .. active - 1: 16 bytes for each of its tiles, and whether the row has a NaN
// in it. They arrive in the shared memory of every block, in one of two buffers that take turns: a
// block sends its next share only when all have sent theirs, and so have read the one before.
#pragma once

#include <cmath>

#include "device.h"
#include "persistent.h"

namespace lstm_fastkernels {
namespace cuda {

// What a block has in its shared memory for the exchange. Of what there are two buffers of, the
// second lies behind the first; an array of two pointers would have to lie in local memory.
struct ExchangeBuffers {
  uint8_t *h_0; // [2][h_bytes]: [rows][h_stride], int8
  int h_stride, h_bytes;
  float *scales_0; // [2][scales_stride]; NaN for a row with a NaN in it
  int scales_stride;
  uint8_t *own;      // [rows][tiles][16], what this block sends
  uint8_t *own_nans; // [64]; 1 for a row with a NaN, which it keeps from then on
  uint8_t *nans_0;   // [2][blocks][64]; cluster only
  int nans_bytes;
  device::Mbarrier *full; // [2]; cluster only

  LFK_DEVICE uint8_t *h(int i) const { return h_0 + i * h_bytes; }
  LFK_DEVICE float *scales(int i) const { return scales_0 + i * scales_stride; }
  LFK_DEVICE uint8_t *nans(int i) const { return nans_0 + i * nans_bytes; }
};

class Patience {
public:
  LFK_DEVICE explicit Patience(uint64_t ns) : ns_(ns) {}
  // Called once for each time that a wait finds nothing.
  LFK_DEVICE bool ran_out() {
    device::pause();
    if (++polls_ % 64) // not more: those of a cluster's barrier take their time
      return false;
    const uint64_t now = device::global_timer_ns();
    if (start_ == 0)
      start_ = now;
    return now - start_ > ns_;
  }

private:
  uint64_t ns_, start_ = 0;
  uint32_t polls_ = 0;
};

// Through distributed shared memory: stores that count on the receiver's barrier.
template <int kTilesOfBlock> class ClusterExchange {
public:
  static constexpr bool kCluster = true;
  static constexpr int kTiles = kTilesOfBlock;

  LFK_DEVICE ClusterExchange(const PersistentArguments &a, const ExchangeBuffers &buffers,
                             int blocks, int tiles)
      : b_(buffers), blocks_(blocks), tiles_(tiles), num_tiles_(a.hh.num_tiles),
        patience_ns_(a.patience_ns) {}

  // Before any block sends.
  LFK_DEVICE void begin() {
    if (device::thread_index() == 0) {
      for (int i = 0; i < 2; ++i)
        b_.full[i].init(1);
      device::fence_mbarrier_init();
    }
    device::cluster_sync();
  }

  // Own share of step `step`, counted from the kernel's first one. A warp sends to one block after
  // the other.
  LFK_DEVICE void send(int64_t step, int active, int first_tile, int block) {
    const int to = static_cast<int>(step + 1) % 2, warps = device::num_threads() / 32;
    uint8_t *const nans = b_.nans(to) + block * kPersistentRows;
    for (int rank = device::warp(); rank < blocks_; rank += warps) {
      for (int i = device::lane(); i < active * kTiles; i += 32) {
        const int row = i / kTiles, tile = i % kTiles;
        if (tile < tiles_)
          put(rank, to, b_.h(to) + row * b_.h_stride + (first_tile + tile) * 16, b_.own + i * 16);
      }
      for (int i = device::lane(); i < nan_pieces(active); i += 32)
        put(rank, to, nans + i * 16, b_.own_nans + i * 16);
    }
  }

  // Waits for all shares of step `step` with so many rows; false where patience runs out. They are
  // there for all threads after a barrier of the block.
  LFK_DEVICE bool receive(int64_t step, int active) {
    device::Mbarrier &full = b_.full[(step + 1) % 2];
    if (device::thread_index() == 0)
      full.arrive_expect_bytes(
          ((num_tiles_ - tiles_) * active + (blocks_ - 1) * nan_pieces(active)) * 16);
    Patience patience(patience_ns_);
    while (!full.try_wait(static_cast<int>(step / 2 % 2)))
      if (patience.ran_out())
        return false;
    return true;
  }

  // After receive, before a barrier of the block that is before the scales are used.
  LFK_DEVICE void mark_nans(int64_t step, int active) {
    const int from = static_cast<int>(step + 1) % 2;
    for (int row = device::thread_index(); row < active; row += device::num_threads())
      for (int block = 0; block < blocks_; ++block)
        if (b_.nans(from)[block * kPersistentRows + row])
          b_.scales(from)[row] = NAN;
  }

  // No block may return while others still send to it.
  LFK_DEVICE void end() { device::cluster_sync(); }

private:
  LFK_DEVICE static int nan_pieces(int active) { return (active + 15) / 16; }

  // A block stores its own copy itself, and the barrier does not count it.
  LFK_DEVICE void put(int rank, int to, uint8_t *own_place, const uint8_t *from) {
    device::Words4 *const place = reinterpret_cast<device::Words4 *>(own_place);
    const device::Words4 value = *reinterpret_cast<const device::Words4 *>(from);
    if (rank == device::cluster_rank())
      *place = value;
    else
      device::store_async(device::map_shared(place, rank), value,
                          device::map_shared(&b_.full[to], rank));
  }

  const ExchangeBuffers b_;
  const int blocks_, tiles_, num_tiles_;
  const uint64_t patience_ns_;
};

// Through global memory: packets of 12 bytes of h and a word that says of which step they are, and
// which of their three words belong to rows with a NaN. Blocks have one tile.
class GridExchange {
public:
  static constexpr bool kCluster = false;
  static constexpr int kTiles = 1;

  LFK_DEVICE GridExchange(const PersistentArguments &a, const ExchangeBuffers &buffers, int blocks,
                          int /*tiles*/)
      : b_(buffers), blocks_(blocks), block_packets_(packets_for(static_cast<int>(a.rows.batch))),
        first_{device::thread_index() / block_packets_, device::thread_index() % block_packets_},
        stride_{device::num_threads() / block_packets_, device::num_threads() % block_packets_},
        epoch_(a.epoch), packets_(a.packets), patience_ns_(a.patience_ns) {}

  LFK_HOST_DEVICE static constexpr int packets_for(int rows) { return (rows * 4 + 2) / 3; }

  LFK_DEVICE void begin() {}

  LFK_DEVICE void send(int64_t step, int active, int /*first_tile*/, int block) {
    device::Words4 *to = packets_ + (step % 2 * blocks_ + block) * block_packets_;
    const uint32_t *words = reinterpret_cast<const uint32_t *>(b_.own);
    for (int i = device::thread_index(); i < packets_for(active); i += device::num_threads()) {
      device::Words4 packet{{0, 0, 0, stamp(step)}};
      for (int j = 0; j < 3; ++j) {
        const int word = i * 3 + j;
        if (word >= active * 4)
          break;
        packet.words[j] = words[word];
        packet.words[3] |= static_cast<uint32_t>(b_.own_nans[word / 4]) << j;
      }
      device::store_packet(to + i, packet);
    }
  }

  LFK_DEVICE bool receive(int64_t step, int active) {
    constexpr int kAtOnce = 4;
    const int sent = packets_for(active);
    const device::Words4 *from = packets_ + step % 2 * blocks_ * block_packets_;
    Patience patience(patience_ns_);
    for (Cursor next = first_; next.block < blocks_;) {
      Cursor at[kAtOnce];
      device::Words4 packets[kAtOnce];
      LFK_UNROLLED (k, kAtOnce) {
        at[k] = next;
        advance(next);
        if (at[k].packet >= sent)
          at[k].block = blocks_;
      }
      for (bool ready = false; !ready;) {
        LFK_UNROLLED (k, kAtOnce) {
          if (at[k].block < blocks_)
            packets[k] = device::load_packet(from + at[k].block * block_packets_ + at[k].packet);
        }
        ready = true;
        LFK_UNROLLED (k, kAtOnce) {
          if (at[k].block < blocks_ && packets[k].words[3] / 8 != stamp(step) / 8)
            ready = false;
        }
        if (!ready && patience.ran_out())
          return false;
      }
      LFK_UNROLLED (k, kAtOnce) {
        if (at[k].block < blocks_)
          unpack(step, active, at[k], packets[k]);
      }
    }
    return true;
  }

  LFK_DEVICE void mark_nans(int64_t /*step*/, int /*active*/) {}
  LFK_DEVICE void end() {}

private:
  // One of the packets that a thread waits for. Counted on without dividing.
  struct Cursor {
    int block, packet;
  };
  LFK_DEVICE void advance(Cursor &c) const {
    c.block += stride_.block;
    c.packet += stride_.packet;
    if (c.packet >= block_packets_) {
      c.packet -= block_packets_;
      ++c.block;
    }
  }

  // Differs from that of any other step of the call, and from 0.
  LFK_DEVICE uint32_t stamp(int64_t step) const {
    return (epoch_ + static_cast<uint32_t>(step) + 1) * 8;
  }

  LFK_DEVICE void unpack(int64_t step, int active, const Cursor &c, const device::Words4 &packet) {
    const int to = static_cast<int>(step + 1) % 2;
    for (int j = 0; j < 3; ++j) {
      const int word = c.packet * 3 + j, row = word / 4;
      if (row >= active)
        break;
      *reinterpret_cast<uint32_t *>(b_.h(to) + row * b_.h_stride + c.block * 16 + word % 4 * 4) =
          packet.words[j];
      if (packet.words[3] >> j & 1)
        b_.scales(to)[row] = NAN;
    }
  }

  const ExchangeBuffers b_;
  const int blocks_, block_packets_;
  const Cursor first_, stride_;
  const uint32_t epoch_;
  device::Words4 *const packets_;
  const uint64_t patience_ns_;
};

} // namespace cuda
} // namespace lstm_fastkernels
