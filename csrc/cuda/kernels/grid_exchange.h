// Exchange across the grid, through global memory. Each packet carries the number of its step, so
// the load that finds it also brings its data. A lane loads the operands of its mma; nothing goes
// through shared memory.
//
// A packet has 3 words of h. With 8-bit activations an mma takes two words of each lane, 8 columns,
// for a group of 8 rows. So a lane needs one packet for a pass of 8 rows, two for 16 or 24:
//
//   packet 0   rows 0..7: both words; rows 8..15: the first
//   packet 1   rows 8..15: the second; rows 16..23: both
//
// With 16-bit activations it takes four words: two packets for 8 rows.
//
// A packet is sent if its first row is active. Each block also sends its status: which rows have a
// NaN, and that the block is ready. A block reads every status, but only packets of columns that it
// multiplies.
#pragma once

#include "cuda/kernels/exchange.h"

namespace lstm_fastkernels {
namespace cuda {

constexpr int kPassPackets = 2 * 16; // of a block, [2][8 rows][2 lanes]

// Packets of a step: [blocks][passes][kPassPackets], then the status of each block.
LFK_HOST_DEVICE constexpr int step_packets(int blocks, int passes) {
  return blocks * (passes * kPassPackets + 1);
}

// A pass has up to 3 groups of 8 rows; with 16-bit activations, one.
template <Arithmetic F, int kRowGroups> class GridExchange {
public:
  static constexpr Arithmetic kArithmetic = F;
  static constexpr bool kCluster = false;
  static constexpr int kTiles = 1;
  static constexpr int kGroups = kRowGroups;

  LFK_DEVICE GridExchange(const PersistentArguments &a, const BlockMemory &memory)
      : a_(a), memory_(memory), place_(a.hh), passes_((a.num_rows + kPassRows - 1) / kPassRows) {}

  LFK_DEVICE void begin() {}

  LFK_DEVICE void send(int step, int active) {
    Words4 *const to = packets(step), *const own = to + place_.block() * passes_ * kPassPackets;
    const uint32_t *const words = reinterpret_cast<const uint32_t *>(memory_.own());
    LFK_ROLLED
    for (int i = device::thread_index(); i < passes_ * kPassPackets; i += kPersistentThreads) {
      const int packet = i / 16 % 2, half = i % 2, first = 3 * packet;
      const int row = i / kPassPackets * kPassRows + i / 2 % 8;
      if (row + first / kWords * 8 >= active)
        continue;
      Words4 sent{{0, 0, 0, stamp(step)}};
      LFK_UNROLLED (j, 3) {
        const int word = first + j, of_row = row + word / kWords * 8;
        if (word < kGroups * kWords && of_row < active)
          sent.words[j] = words[(of_row * 2 + half) * kWords + word % kWords];
      }
      device::store_packet(own + i, sent);
    }
    if (device::thread_index() == kPersistentThreads - 1)
      device::store_packet(statuses(to) + place_.block(),
                           Words4{{memory_.own_nans()[0], memory_.own_nans()[1], 0, stamp(step)}});
  }

  template <int kFragments, class Wanted, class Visit>
  LFK_DEVICE bool receive(int step, const Pass &pass, int first_column, const Wanted &wanted,
                          const Visit &visit) {
    constexpr int kMost = kAtOnce / kPackets, kColumns = kFragments < kMost ? kFragments : kMost;
    LFK_UNROLLED (batch, (kFragments + kColumns - 1) / kColumns) {
      if (!receive_some<kFragments, kColumns>(step, pass, first_column, batch * kColumns, wanted,
                                              visit))
        return false;
    }
    return true;
  }

  LFK_DEVICE void end() {}

private:
  static constexpr int kPassRows = 8 * kGroups;
  static constexpr int kWords = 2 * activation_bytes(F);      // of a lane and group
  static constexpr int kPackets = (kGroups * kWords + 2) / 3; // of a lane and fragment
  static_assert(kPackets <= 2);
  static constexpr int kAtOnce = 8; // packets that a lane waits for together

  LFK_DEVICE Words4 *packets(int step) const {
    return a_.packets + (step & 1) * step_packets(place_.blocks(), passes_); // step may be -1
  }
  LFK_DEVICE Words4 *statuses(Words4 *packets_of_step) const {
    return packets_of_step + place_.blocks() * passes_ * kPassPackets;
  }
  // Repeats after 2^32 steps of a call; empty packets have 0.
  LFK_DEVICE uint32_t stamp(int step) const { return a_.epoch + static_cast<uint32_t>(step) + 1; }

  // Fragments first_b .. first_b + kColumns - 1 of kFragments.
  template <int kFragments, int kColumns, class Wanted, class Visit>
  LFK_DEVICE bool receive_some(int step, const Pass &pass, int first_column, int first_b,
                               const Wanted &wanted, const Visit &visit) {
    const int row = pass.first + device::lane() / 4, half = device::lane() % 2;
    const int first_block = 2 * (first_column + first_b) + device::lane() % 4 / 2;
    Words4 *const of_step = packets(step - 1);
    const Words4 *const from = of_step + first_block * passes_ * kPassPackets +
                               pass.first / kPassRows * kPassPackets + device::lane() / 4 * 2 +
                               half;
    const bool wants_status =
        step > 0 && pass.first == 0 && first_b == 0 && device::thread_index() < place_.blocks();
    const auto multiplied = [&](int i) { return first_b + i < kFragments && wanted(first_b + i); };
    const auto exists = [&](int i, int packet) {
      return multiplied(i) && first_block + 2 * i < place_.blocks() &&
             row + 3 * packet / kWords * 8 < pass.sent;
    };
    const uint32_t expected = stamp(step - 1);
    const auto awaited = [&](bool awaits) {
      return Words4{{0, 0, 0, awaits ? ~expected : expected}};
    };
    Words4 packets[kColumns][kPackets], status = awaited(wants_status);
    LFK_UNROLLED (i, kColumns) {
      LFK_UNROLLED (j, kPackets)
        packets[i][j] = awaited(exists(i, j));
    }
    Patience patience;
    for (;;) {
      if (status.words[3] != expected)
        status = device::load_packet(statuses(of_step) + device::thread_index());
      LFK_UNROLLED (i, kColumns) {
        LFK_UNROLLED (j, kPackets)
          if (packets[i][j].words[3] != expected)
            packets[i][j] = device::load_packet(from + i * 2 * passes_ * kPassPackets + j * 16);
      }
      uint32_t missing = status.words[3] ^ expected;
      LFK_UNROLLED (i, kColumns) {
        LFK_UNROLLED (j, kPackets)
          missing |= packets[i][j].words[3] ^ expected;
      }
      if (!device::any_lane(missing != 0))
        break;
      if (device::any_lane(patience.ran_out(a_.patience_ns)))
        return false;
    }
    if (wants_status)
      mark_rows(status.words[0], status.words[1], memory_.scales(step % 2));
    if (pass.sent < pass.active && pass.sent < pass.first + kPassRows) {
      LFK_UNROLLED (i, kColumns) {
        LFK_UNROLLED (word, kGroups * kWords) {
          const int of_row = row + word / kWords * 8;
          if (multiplied(i) && of_row >= pass.sent && of_row < pass.active)
            packets[i][word / 3].words[word % 3] =
                from_the_beginning(step, of_row, first_column + first_b + i, word % kWords);
        }
      }
    }
    LFK_UNROLLED (i, kColumns) {
      if (multiplied(i)) {
        LFK_UNROLLED (group, kGroups) {
          LaneColumns<F> columns;
          LFK_UNROLLED (j, kWords) {
            const int word = group * kWords + j;
            columns.words[j] = packets[i][word / 3].words[word % 3];
          }
          if (pass.first + 8 * group < pass.active)
            visit(first_b + i, group, columns);
        }
      }
    }
    return true;
  }

  // A word of a row that has not been active in this kernel.
  LFK_DEVICE uint32_t from_the_beginning(int step, int row, int column, int word) const {
    const QuantizedRows &h = a_.h[(a_.begin + step) % 2];
    return reinterpret_cast<const uint32_t *>(h.data + row * h.stride +
                                              column * fragment_row_bytes(F) +
                                              device::lane() % 4 * lane_bytes(F))[word];
  }

  const PersistentArguments &a_;
  const BlockMemory memory_;
  const BlockPlace<kTiles> place_;
  const int passes_;
};

} // namespace cuda
} // namespace lstm_fastkernels
