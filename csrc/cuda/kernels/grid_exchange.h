// Exchange across the grid, through global memory. Each packet carries the number of its step, so
// the load that finds it also brings its data.
//
// A block sends its status, which rows have a NaN and that it is ready, and its h, [rows][16
// units], by three words a packet:
//
//   packet 0   status           packet 1   words 0..2           packet 2   words 3..5        ...
//
// Every block reads all packets of active rows: warp w those of blocks w, w + 8, ...
#pragma once

#include "cuda/kernels/exchange.h"

namespace lstm_fastkernels {
namespace cuda {

constexpr int kRowWords = kBandHeight * int{sizeof(int16_t)} / int{sizeof(uint32_t)};

// Packets of a block for a step.
LFK_HOST_DEVICE constexpr int block_packets(int rows) { return 1 + (rows * kRowWords + 2) / 3; }

class GridExchange {
public:
  static constexpr bool kCluster = false;
  static constexpr int kTiles = 1;

  LFK_DEVICE GridExchange(const PersistentArguments &a, const BlockMemory &memory)
      : a_(a), memory_(memory), place_(a.hh) {}

  LFK_DEVICE void begin() {}

  LFK_DEVICE void send(int step, int active) {
    Words4 *const to = packets(step) + first_packet(place_.block());
    const uint32_t *const words = reinterpret_cast<const uint32_t *>(memory_.own());
    LFK_ROLLED
    for (int i = device::thread_index(); i < block_packets(active); i += kPersistentThreads) {
      Words4 sent{{memory_.own_nans()[0], memory_.own_nans()[1], 0, stamp(step)}};
      if (i > 0) {
        LFK_UNROLLED (j, 3) {
          const int word = (i - 1) * 3 + j;
          sent.words[j] = word < active * kRowWords ? words[word] : 0;
        }
      }
      device::store_packet(to + i, sent);
    }
  }

  LFK_DEVICE bool collect(int step, int sent) {
    const int count = block_packets(sent);
    const uint32_t expected = stamp(step - 1);
    for (Cursor next{device::warp(), 0}; next.block < place_.blocks();) {
      Cursor at = next;
      Words4 found[kAtOnce];
      int places[kAtOnce];
      LFK_UNROLLED (i, kAtOnce) {
        found[i].words[3] = exists(next, count) ? ~expected : expected;
        places[i] = first_packet(next.block) + next.packet();
        next.advance(count);
      }
      Patience patience;
      for (;;) {
        uint32_t missing = 0;
        LFK_UNROLLED (i, kAtOnce) {
          if (found[i].words[3] != expected)
            found[i] = device::load_packet(packets(step - 1) + places[i]);
          missing |= found[i].words[3] ^ expected;
        }
        if (!device::any_lane(missing != 0))
          break;
        if (device::any_lane(patience.ran_out(a_.patience_ns)))
          return false;
      }
      LFK_UNROLLED (i, kAtOnce) {
        if (exists(at, count))
          take(at, found[i], step, sent);
        at.advance(count);
      }
    }
    return true;
  }

  LFK_DEVICE void end() {}

private:
  static constexpr int kAtOnce = 8; // packets that a lane waits for together

  // A lane's way through the packets of its warp's blocks.
  struct Cursor {
    int block, first; // of the 32 packets that the warp's lanes are at

    LFK_DEVICE int packet() const { return first + device::lane(); }
    LFK_DEVICE void advance(int count) {
      first += 32;
      if (first >= count) {
        first = 0;
        block += kPersistentWarps;
      }
    }
  };

  LFK_DEVICE bool exists(const Cursor &at, int count) const {
    return at.block < place_.blocks() && at.packet() < count;
  }
  LFK_DEVICE int first_packet(int block) const { return block * block_packets(a_.num_rows); }
  LFK_DEVICE Words4 *packets(int step) const {
    return a_.packets + (step & 1) * first_packet(place_.blocks());
  }
  // Repeats after 2^32 steps of a call; empty packets have 0.
  LFK_DEVICE uint32_t stamp(int step) const { return a_.epoch + static_cast<uint32_t>(step) + 1; }

  LFK_DEVICE void take(const Cursor &at, const Words4 &packet, int step, int sent) const {
    if (at.packet() == 0)
      return memory_.add_nans(packet);
    LFK_UNROLLED (j, 3) {
      const int word = (at.packet() - 1) * 3 + j;
      if (word < sent * kRowWords)
        reinterpret_cast<uint32_t *>(memory_.h_row(
            step, word / kRowWords))[at.block * kRowWords + word % kRowWords] = packet.words[j];
    }
  }

  const PersistentArguments &a_;
  const BlockMemory memory_;
  const BlockPlace<kTiles> place_;
};

} // namespace cuda
} // namespace lstm_fastkernels
