// The persistent kernel. A step of a block with `kTiles` tiles of 16 units:
//
//   collect   h of all blocks comes into shared memory, in 16 bits
//   scale     Each warp finds how some of the rows are multiplied: for 8 bits, by their range
//   multiply  Each of 8 warps keeps the weights of an eighth of the columns in registers. It loads
//             h of these columns, makes 8 bits of it or not, and issues one mma for each gate, 32
//             columns and 8 rows. A lane stores its sums, the four gates of a unit, to shared
//             memory
//   finish    Each thread computes a unit of a row: adds the warps' sums, then gates, c and h
//   send      The block sends its h to the other blocks
//
// with a block barrier after each of the first four; 16 rows are multiplied and finished at a time.
// Input products are copied to shared memory one step ahead.
#pragma once

#include <cmath>

#include "cuda/kernels/device.h"
#include "cuda/kernels/fragments.h"
#include "cuda/kernels/persistent.h"
#include "cuda/kernels/persistent_shared.h"
#include "cuda/kernels/quantize_row.h"
#include "cuda/kernels/values.h"

namespace lstm_fastkernels {
namespace cuda {

// Zero fragments are not multiplied.
template <Arithmetic F, class Exchange, int kFragments> class PersistentBlock {
public:
  LFK_DEVICE explicit PersistentBlock(const PersistentArguments &a)
      : a_(a), memory_(sizes(a)), place_(a.hh), exchange_(a, memory_),
        exchanged_max_(exchanged_target(a.hh).activation_max) {}

  LFK_DEVICE void run() {
    if (place_.tiles() > 0) {
      load_weights();
      load_state();
    }
    exchange_.begin();
    device::sync_threads();
    if (place_.tiles() > 0) {
      run_steps();
      store_state();
    }
    exchange_.end();
  }

private:
  static constexpr int kTiles = Exchange::kTiles;
  static constexpr int kRowsOfTiles = kTiles * kTileHeight;
  static constexpr int kUnits = kTiles * kBandHeight;

  // The rows of a step.
  struct Step {
    int row;    // where its input products begin
    int active; // active rows
  };

  LFK_DEVICE static SharedSizes sizes(const PersistentArguments &a) {
    return {a.num_rows, a.hh.num_columns, kTiles, BlockPlace<kTiles>(a.hh).blocks(),
            Exchange::kCluster};
  }
  // Pieces of 16 bytes of a row of h, with padding.
  LFK_DEVICE int h_pieces() const { return static_cast<int>(a_.h.stride) / int{sizeof(Words4)}; }
  LFK_DEVICE static int16_t short_of(const Words4 &piece, int i) {
    return static_cast<int16_t>(piece.words[i / 2] >> i % 2 * 16);
  }
  LFK_DEVICE int first_unit() const { return place_.first_tile() * kBandHeight; }

  // Steps count from the kernel's first one.
  LFK_DEVICE int64_t time(int step) const {
    const int64_t travelled = a_.begin + step;
    return a_.reverse ? a_.rows.time_steps - 1 - travelled : travelled;
  }
  // How many of the batch's first rows belong to this kernel's range.
  LFK_DEVICE int rows_of(int64_t first_ones) const {
    const int64_t rows = first_ones - a_.row_begin;
    return rows < 0 ? 0 : rows < a_.num_rows ? static_cast<int>(rows) : a_.num_rows;
  }
  LFK_DEVICE Step step_at(int step) const {
    const int64_t t = time(step), start = a_.rows.start(t), end = a_.rows.end(t);
    Step s;
    s.row = static_cast<int>(start - a_.first_row + a_.row_begin);
    s.active = rows_of(end - start);
    return s;
  }

  // In fragments: all columns, and the first of this warp.
  LFK_DEVICE int columns() const {
    return (a_.hh.num_columns + kFragmentColumns - 1) / kFragmentColumns;
  }
  LFK_DEVICE int first_column() const { return device::warp() * a_.fragments; }

  LFK_DEVICE void load_weights() {
    const DeviceMatrix &m = a_.hh;
    kept_ = 0;
    LFK_UNROLLED (tile, kTiles) {
      LFK_UNROLLED (gate, kGates) {
        const int band = (place_.first_tile() + tile) * kGates + gate;
        const uint32_t begin = tile < place_.tiles() ? m.starts[band] : 0;
        const uint32_t end = tile < place_.tiles() ? m.starts[band + 1] : 0;
        uint32_t position = first_fragment(begin, end);
        LFK_UNROLLED (b, kFragments) {
          const bool exists =
              b < a_.fragments && position < end && m.columns[position] == first_column() + b;
          const Words4 loaded = exists ? load_fragment(m, position++) : Words4{};
          LFK_UNROLLED (i, 4)
            weights_[tile][gate][b][i] = loaded.words[i];
          kept_ |= static_cast<uint32_t>(exists) << (b * kGates + gate);
        }
      }
    }
    LFK_ROLLED
    for (int i = device::thread_index(); i < place_.tiles() * kTileHeight;
         i += kPersistentThreads) {
      const int unit = i / kTileHeight * kBandHeight + i % kBandHeight;
      const int gate = i % kTileHeight / kBandHeight;
      const int row = place_.first_tile() * kTileHeight + i;
      memory_.weight_scales()[unit].of_gate[gate] = m.scales[row];
      if constexpr (has_zero_points(F))
        memory_.weight_sums()[unit].of_gate[gate] = m.row_sums[row];
    }
  }

  // A band's first fragment at or after this warp's columns. Dense bands need no search.
  LFK_DEVICE uint32_t first_fragment(uint32_t begin, uint32_t end) const {
    const uint32_t before = first_column() < columns() ? first_column() : columns();
    const uint32_t from_it = columns() - before;
    uint32_t low = end - begin > from_it ? end - from_it : begin;
    uint32_t high = end - begin > before ? begin + before : end;
    while (low < high) {
      const uint32_t middle = low + (high - low) / 2;
      if (a_.hh.columns[middle] < first_column())
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  }

  LFK_DEVICE void load_state() {
    const int rows = a_.num_rows;
    LFK_ROLLED
    for (int row = device::warp(); row < rows; row += kPersistentWarps) {
      memory_.row_units()[row] = a_.h.scales[row];
      for (int n = device::lane(); n < h_pieces(); n += kLanes)
        for (int step = 0; step < (Exchange::kCluster ? 2 : 1); ++step)
          reinterpret_cast<Words4 *>(memory_.h_row(step, row))[n] =
              reinterpret_cast<const Words4 *>(a_.h.data + row * a_.h.stride)[n];
    }
    LFK_ROLLED
    for (int i = device::thread_index(); i < rows * kUnits; i += kPersistentThreads) {
      const int64_t from = i / kUnits * a_.units_stride + first_unit() + i % kUnits;
      const bool exists = i % kUnits < place_.tiles() * kBandHeight;
      memory_.c()[i] = exists ? a_.c[from] : 0.0f;
      memory_.last_h()[i] = exists ? a_.last_h[from] : 0.0f;
    }
    if (device::thread_index() == 0) {
      for (int i = 0; i < 2; ++i)
        memory_.own_nans()[i] = memory_.row_nans()[i] = 0;
      *memory_.failed() = 0;
    }
  }

  // Starts copying a step's input products.
  LFK_DEVICE void copy_gates(int step, const Step &s) {
    constexpr int kPieces = kRowsOfTiles / 4;
    float *const to = memory_.gates(step % 2);
    LFK_ROLLED
    for (int i = device::thread_index(); i < s.active * kPieces; i += kPersistentThreads) {
      const int row = i / kPieces, column = i % kPieces * 4;
      if (column < place_.tiles() * kTileHeight)
        device::copy_async_16(to + row * memory_.layout.gates_stride + column,
                              a_.input_gates + int64_t{s.row + row} * a_.hh.padded_rows() +
                                  place_.first_tile() * kTileHeight + column);
    }
    device::commit_copies();
  }

  LFK_DEVICE void run_steps() {
    const int count = static_cast<int>(a_.end - a_.begin);
    copy_gates(0, step_at(0));
    int sent = 0; // active rows of the step before
    for (int k = 0; k < count; ++k) {
      const Step s = step_at(k);
      const bool last = k + 1 == count;
      if (!last)
        copy_gates(k + 1, step_at(k + 1));
      if (k > 0 && !exchange_.collect(k, sent))
        *memory_.failed() = 1;
      device::sync_threads();
      if (*memory_.failed())
        return fail(k, count);
      for (int row = device::warp(); row < s.active; row += kPersistentWarps)
        scale_row(k, row, row < sent);
      device::sync_threads();
      if (last)
        device::wait_copies<0>();
      else
        device::wait_copies<1>();
      LFK_ROLLED
      for (int first = 0; first < s.active; first += kRowsAtOnce) {
        const int end = first + kRowsAtOnce < s.active ? first + kRowsAtOnce : s.active;
        for (int row = first; row < end; row += 8)
          multiply(k, row, end);
        device::sync_threads();
        for_each_unit(first, end, [&](int row, int unit) { finish_unit(k, row, unit); });
        device::sync_threads();
      }
      if (!last)
        exchange_.send(k, s.active);
      for_each_unit(0, s.active, [&](int row, int unit) {
        store_y(k, s, row, unit, memory_.last_h()[row * kUnits + unit]);
      });
      sent = s.active;
    }
  }

  // How the step multiplies a row, which the step before sent, or which was there at the beginning.
  LFK_DEVICE void scale_row(int k, int row, bool sent) const {
    float unit = sent ? 1.0f / static_cast<float>(exchanged_max_) : memory_.row_units()[row];
    if (sent && memory_.row_nans()[row / 32] >> row % 32 & 1)
      unit = NAN;
    SharedQuantizer by{unit, 0.0f, 0};
    if constexpr (has_zero_points(F)) {
      const Words4 *const h = reinterpret_cast<const Words4 *>(memory_.h_row(k, row));
      int lo = 0, hi = 0;
      for (int i = device::lane(); i < h_pieces(); i += kLanes) {
        const Words4 piece = h[i];
        LFK_UNROLLED (j, 8) {
          const int v = short_of(piece, j);
          lo = v < lo ? v : lo;
          hi = v > hi ? v : hi;
        }
      }
      const RowQuantizer to = quantizer(static_cast<float>(-device::largest_of_lanes(-lo)),
                                        static_cast<float>(device::largest_of_lanes(hi)), true,
                                        RowKind::any, true, a_.hh.activation_max);
      by = {to.scale * unit, to.inverse, to.zero_point};
    }
    if (device::lane() == 0)
      memory_.row_quantizers()[row] = by;
  }

  // A lane's 8 columns of a row.
  LFK_DEVICE LaneColumns<F> load_h(const uint8_t *h, const SharedQuantizer &by) const {
    const Words4 wide = *reinterpret_cast<const Words4 *>(h);
    if constexpr (F == Arithmetic::signed16) {
      return wide;
    } else {
      const RowQuantizer to{by.scale, 0.0f, by.inverse, by.zero_point, 0, a_.hh.activation_max};
      Words2 narrow{};
      LFK_UNROLLED (i, 8)
        narrow.words[i / 4] |= static_cast<uint32_t>(to(static_cast<float>(short_of(wide, i))))
                               << i % 4 * 8;
      return narrow;
    }
  }

  // Stores this warp's sums of products with rows first .. first + 7, before `end`, to shared
  // memory.
  LFK_DEVICE void multiply(int k, int first, int end) {
    const int of_lane = first + device::lane() / 4;
    const int row = of_lane < end ? of_lane : end - 1;
    const SharedQuantizer by = memory_.row_quantizers()[row];
    constexpr int kLaneBytes = lane_bytes(Arithmetic::signed16);
    const uint8_t *const h =
        memory_.h_row(k, row) + (first_column() * 4 + device::lane() % 4) * kLaneBytes;
    Sums<F> sums[kTiles][kGates];
    LFK_UNROLLED (b, kFragments) {
      if (kept_ >> b * kGates & 15) {
        const LaneColumns<F> columns = load_h(h + b * 4 * kLaneBytes, by);
        LFK_UNROLLED (gate, kGates) {
          if (kept_ >> (b * kGates + gate) & 1) {
            LFK_UNROLLED (tile, kTiles)
              sums[tile][gate].add(weights_[tile][gate][b], columns);
          }
        }
      }
    }
    store_sums(sums, first, end);
  }

  LFK_DEVICE void store_sums(const Sums<F> (&sums)[kTiles][kGates], int first, int end) const {
    LFK_UNROLLED (tile, kTiles) {
      LFK_UNROLLED (i, 4) {
        const int row = first + device::lane() % 4 * 2 + i % 2;
        const int unit = tile * kBandHeight + device::lane() / 4 + i / 2 * 8;
        Words4 gates;
        LFK_UNROLLED (gate, kGates)
          gates.words[gate] = static_cast<uint32_t>(sums[tile][gate][i]);
        if (row < end)
          *sums_of(device::warp(), row, unit) = gates;
      }
    }
  }

  LFK_DEVICE Words4 *sums_of(int warp, int row, int unit) const {
    return memory_.sums() +
           (warp * memory_.layout.sum_rows + row % kRowsAtOnce) * memory_.layout.sums_stride + unit;
  }

  // Calls visit(row, unit) for this thread's units of rows begin .. end - 1.
  template <class Visit>
  LFK_DEVICE void for_each_unit(int begin, int end, const Visit &visit) const {
    LFK_ROLLED
    for (int i = begin * kUnits + device::thread_index(); i < end * kUnits; i += kPersistentThreads)
      if (i % kUnits < place_.tiles() * kBandHeight)
        visit(i / kUnits, i % kUnits);
  }

  LFK_DEVICE void finish_unit(int k, int row, int unit) {
    uint32_t sums[kGates] = {};
    LFK_UNROLLED (warp, kPersistentWarps) {
      const Words4 of_warp = *sums_of(warp, row, unit);
      LFK_UNROLLED (g, kGates)
        sums[g] += of_warp.words[g];
    }
    const SharedQuantizer by = memory_.row_quantizers()[row];
    const UnitScales scales = memory_.weight_scales()[unit];
    const float *const in = memory_.gates(k % 2) + row * memory_.layout.gates_stride +
                            unit / kBandHeight * kTileHeight + unit % kBandHeight;
    if constexpr (has_zero_points(F)) {
      const UnitSums of_weights = memory_.weight_sums()[unit];
      LFK_UNROLLED (g, kGates)
        sums[g] -= static_cast<uint32_t>(by.zero_point * of_weights.of_gate[g]);
    }
    float gates[kGates];
    LFK_UNROLLED (g, kGates)
      gates[g] = std::fma(static_cast<float>(static_cast<int32_t>(sums[g])),
                          by.scale * scales.of_gate[g], in[g * kBandHeight]);
    const int at = row * kUnits + unit;
    const float h = update_cell(gates, memory_.c()[at]);
    memory_.last_h()[at] = h;
    if (std::isnan(h))
      device::atomic_or(&memory_.own_nans()[row / 32], 1u << row % 32);
    memory_.own()[at] = to_exchange(h);
  }

  // As exchanged_target() says of values in [-1, 1].
  LFK_DEVICE int16_t to_exchange(float h) const {
    const RowQuantizer to{
        1.0f, 0.0f, static_cast<float>(exchanged_max_), 0, -exchanged_max_, exchanged_max_};
    return std::isnan(h) ? int16_t{0} : static_cast<int16_t>(to(h));
  }

  LFK_DEVICE void store_y(int k, const Step &s, int row, int unit, float h) const {
    const int u = first_unit() + unit;
    if (u < a_.hidden_size)
      store_value(a_.y.at(a_.rows, time(k), a_.row_begin + row, s.row + row), a_.y.type, u, h);
  }

  // Fills the rest of this block's outputs with NaN and reports the failure to the host.
  LFK_DEVICE void fail(int k, int count) {
    device::wait_copies<0>(); // the next step's must not outlive the block
    for (; k < count; ++k) {
      const Step s = step_at(k);
      for_each_unit(0, s.active, [&](int row, int unit) { store_y(k, s, row, unit, NAN); });
    }
    LFK_ROLLED
    for (int i = device::thread_index(); i < a_.num_rows * kUnits; i += kPersistentThreads)
      memory_.c()[i] = memory_.last_h()[i] = NAN;
    if (device::thread_index() == 0)
      *a_.failed = 1;
    device::sync_threads();
  }

  // For the caller, or for the launch of the next chunk.
  LFK_DEVICE void store_state() {
    for_each_unit(0, a_.num_rows, [&](int row, int unit) {
      const int64_t to = row * a_.units_stride + first_unit() + unit;
      a_.c[to] = memory_.c()[row * kUnits + unit];
      a_.last_h[to] = memory_.last_h()[row * kUnits + unit];
    });
  }

  const PersistentArguments &a_;
  const BlockMemory memory_;
  const BlockPlace<kTiles> place_;
  Exchange exchange_;
  const int32_t exchanged_max_;
  uint32_t weights_[kTiles][kGates][kFragments][4];
  uint32_t kept_; // a bit for each fragment and gate: not zero in some tile; the same in all lanes
};

template <Arithmetic F, class Exchange, int kFragments>
LFK_KERNEL(kPersistentThreads, 1)
persistent_kernel(LFK_PARAMETERS(SideBySide<PersistentArguments>) all) {
  PersistentBlock<F, Exchange, kFragments>(all.of[device::block_index().z]).run();
}

} // namespace cuda
} // namespace lstm_fastkernels
