// The persistent kernel. A step of a block with `kTiles` tiles of 16 units:
//
//   receive   h of all units, from all blocks
//   products  warp w has part w % kParts of the columns and 4 kParts / 8 of the gates; it keeps its
//             weights in registers. One mma for each fragment and 8 rows; a lane's sums go to
//             shared memory
//   finish    a thread takes a unit of a row: adds the parts, gates, c, h
//   send      the block's share of h
//
// Input products are copied to shared memory one step ahead.
#pragma once

#include <cmath>

#include "device.h"
#include "exchange.h"
#include "fragments.h"
#include "persistent.h"
#include "persistent_shared.h"
#include "values.h"

namespace lstm_fastkernels {
namespace cuda {

constexpr int kPersistentThreads = kPersistentWarps * 32;

template <class Exchange, int kParts, int kBlocks, bool kSparse> class PersistentBlock {
public:
  LFK_DEVICE explicit PersistentBlock(const PersistentArguments &a)
      : a_(a), layout_(sizes(a)), memory_(device::shared_memory<uint8_t>()),
        block_(device::block_index().x), first_tile_(block_ * kTiles),
        tiles_(clamp(a.hh.num_tiles - first_tile_)), buffers_(buffers_of(layout_, memory_)),
        exchange_(a, buffers_, (a.hh.num_tiles + kTiles - 1) / kTiles, tiles_) {}

  LFK_DEVICE void run() {
    if (tiles_ > 0) {
      load_weights();
      load_state();
    }
    exchange_.begin();
    device::sync_threads();
    if (tiles_ > 0) {
      run_steps();
      store_state();
    }
    exchange_.end();
  }

private:
  static constexpr int kTiles = Exchange::kTiles;
  static constexpr int kGates = 4;
  static constexpr int kWarpGates = kGates * kParts / kPersistentWarps;
  static constexpr int kBlockRows = kTiles * kTileHeight;
  static constexpr int kUnits = kTiles * kStripHeight;

  // What a step works on.
  struct Step {
    int64_t t, row; // row: where its input products begin
    int active;     // rows at work
    int first;      // rows from this one on take their first step
  };

  LFK_DEVICE static SharedSizes sizes(const PersistentArguments &a) {
    return {static_cast<int>(a.rows.batch),         a.hh.num_columns,  kTiles, kParts,
            (a.hh.num_tiles + kTiles - 1) / kTiles, Exchange::kCluster};
  }
  LFK_DEVICE static ExchangeBuffers buffers_of(const SharedLayout &layout, uint8_t *memory) {
    ExchangeBuffers b;
    b.h_0 = memory + layout.h;
    b.h_stride = layout.h_stride;
    b.h_bytes = layout.h_bytes;
    b.scales_0 = reinterpret_cast<float *>(memory + layout.scales);
    b.scales_stride = layout.scales_floats;
    b.own = memory + layout.own;
    b.own_nans = memory + layout.own_nans;
    b.nans_0 = memory + layout.nans;
    b.nans_bytes = layout.nans_bytes;
    b.full = reinterpret_cast<device::Mbarrier *>(memory + layout.full);
    return b;
  }
  LFK_DEVICE static int clamp(int tiles) { return tiles < 0 ? 0 : tiles < kTiles ? tiles : kTiles; }

  template <class T> LFK_DEVICE T *at(int offset) const {
    return reinterpret_cast<T *>(memory_ + offset);
  }

  // Input products of a step.
  LFK_DEVICE float *gates(int64_t step) const {
    return at<float>(layout_.gates) + static_cast<int>(step % 2) * layout_.gates_floats;
  }

  LFK_DEVICE int64_t time(int64_t step) const {
    return a_.reverse ? a_.rows.time_steps - 1 - step : step;
  }
  LFK_DEVICE Step step_at(int64_t step) const {
    Step s;
    s.t = time(step);
    const int64_t start = a_.rows.start(s.t), end = a_.rows.end(s.t);
    s.row = start - a_.first_row;
    s.active = static_cast<int>(end - start);
    s.first = static_cast<int>(a_.rows.batch);
    if (step == 0)
      s.first = 0;
    else if (a_.reverse)
      s.first = static_cast<int>(a_.rows.end(s.t + 1) - end);
    return s;
  }

  LFK_DEVICE int part() const { return device::warp() % kParts; }
  LFK_DEVICE int first_gate() const { return device::warp() / kParts * kWarpGates; }

  LFK_DEVICE void load_weights() {
    const Matrix &m = a_.hh;
    LFK_UNROLLED (tile, kTiles) {
      LFK_UNROLLED (gate, kWarpGates) {
        const int strip = (first_tile_ + tile) * kGates + first_gate() + gate;
        const uint32_t begin = tile < tiles_ ? m.starts[strip] : 0;
        const uint32_t end = tile < tiles_ ? m.starts[strip + 1] : 0;
        const uint32_t first = begin + (end - begin) * part() / kParts;
        const uint32_t last = begin + (end - begin) * (part() + 1) / kParts;
        LFK_UNROLLED (b, kBlocks) {
          uint32_t position = first + b;
          bool exists = position < last;
          if (!kSparse) {
            position = find(begin, end, part() * kBlocks + b);
            exists = position < end;
          }
          columns_[gate][b] = kSparse && exists ? m.columns[position] : 0;
          const Words4 loaded = exists ? load_fragment(m, position) : Words4{};
          for (int i = 0; i < 4; ++i)
            weights_[tile][gate][b][i] = loaded.words[i];
        }
        counts_[gate] = static_cast<int>(last - first);
      }
    }
    float *scales = at<float>(layout_.weight_scales);
    for (int i = device::thread_index(); i < tiles_ * kTileHeight; i += kPersistentThreads)
      scales[i] = m.scales[first_tile_ * kTileHeight + i];
  }

  // Where a strip's block of this column is; `end` where it is left out.
  LFK_DEVICE uint32_t find(uint32_t begin, uint32_t end, int column) const {
    uint32_t low = begin, high = end;
    while (low < high) {
      const uint32_t middle = low + (high - low) / 2;
      if (a_.hh.columns[middle] < column)
        low = middle + 1;
      else
        high = middle;
    }
    return low < end && a_.hh.columns[low] == column ? low : end;
  }

  LFK_DEVICE void load_state() {
    const int rows = static_cast<int>(a_.rows.batch);
    for (int i = 0; i < 2; ++i) {
      const QuantizedRows &from = a_.h[(a_.begin + i) % 2];
      const int pieces = static_cast<int>(from.stride) / 16;
      for (int n = device::thread_index(); n < rows * pieces; n += kPersistentThreads) {
        const int row = n / pieces, byte = n % pieces * 16;
        *reinterpret_cast<Words4 *>(buffers_.h(i) + row * layout_.h_stride + byte) =
            *reinterpret_cast<const Words4 *>(from.data + row * from.stride + byte);
      }
      for (int row = device::thread_index(); row < rows; row += kPersistentThreads)
        buffers_.scales(i)[row] = from.scales[row];
    }
    for (int row = device::thread_index(); row < rows; row += kPersistentThreads)
      at<float>(layout_.first_scales)[row] = a_.first_scales[row];
    for (int i = device::thread_index(); i < kPersistentRows; i += kPersistentThreads)
      buffers_.own_nans[i] = 0;
    for (int i = device::thread_index(); i < rows * kUnits; i += kPersistentThreads) {
      const int64_t from = i / kUnits * a_.units_stride + first_tile_ * kStripHeight + i % kUnits;
      const bool exists = i % kUnits < tiles_ * kStripHeight;
      at<float>(layout_.c)[i] = exists ? a_.c[from] : 0.0f;
      at<float>(layout_.last_h)[i] = exists ? a_.last_h[from] : 0.0f;
    }
    if (device::thread_index() == 0)
      *at<int>(layout_.failed) = 0;
  }

  // Starts the copies of a step's input products.
  LFK_DEVICE void copy_gates(int64_t step, const Step &s) {
    constexpr int kPieces = kBlockRows / 4;
    for (int i = device::thread_index(); i < s.active * kPieces; i += kPersistentThreads) {
      const int row = i / kPieces, column = i % kPieces * 4;
      if (column < tiles_ * kTileHeight)
        device::copy_async_16(gates(step) + row * layout_.gates_stride + column,
                              a_.input_gates + (s.row + row) * a_.hh.padded_rows() +
                                  first_tile_ * kTileHeight + column);
    }
    device::commit_copies();
  }

  LFK_DEVICE void run_steps() {
    const int64_t count = a_.end - a_.begin;
    Step current = step_at(a_.begin);
    copy_gates(0, current);
    int received = 0; // rows of the step before
    for (int64_t k = 0; k < count; ++k) {
      const bool last = k + 1 == count;
      const Step next = last ? current : step_at(a_.begin + k + 1);
      if (!last)
        copy_gates(k + 1, next);
      if (k > 0) {
        if (!exchange_.receive(k - 1, received))
          *at<int>(layout_.failed) = 1;
        device::sync_threads();
      }
      multiply(buffers_.h(k % 2), current.active);
      if (k > 0)
        exchange_.mark_nans(k - 1, received);
      if (last)
        device::wait_copies<0>();
      else
        device::wait_copies<1>();
      device::sync_threads();
      if (*at<int>(layout_.failed))
        return fail(a_.begin + k);
      for_each_unit(current.active, [&](int row, int unit) { finish_unit(k, current, row, unit); });
      device::sync_threads();
      if (!last)
        exchange_.send(k, current.active, first_tile_, block_);
      for_each_unit(current.active, [&](int row, int unit) {
        store_y(current, row, unit, at<float>(layout_.last_h)[row * kUnits + unit]);
      });
      received = current.active;
      current = next;
    }
  }

  // Sums of products of this warp's weights with rows of h, into shared memory.
  LFK_DEVICE void multiply(const uint8_t *h, int active) const {
    const int fragments = (a_.hh.num_columns + kFragmentColumns - 1) / kFragmentColumns;
    for (int first = 0; first < active; first += 8) {
      const uint8_t *q =
          h + (first + device::lane() / 4) * layout_.h_stride + device::lane() % 4 * 8;
      int32_t sums[kTiles][kWarpGates][4] = {};
      LFK_UNROLLED (b, kBlocks) {
        if constexpr (kSparse) {
          LFK_UNROLLED (gate, kWarpGates)
            if (b < counts_[gate])
              device::mma_s8s8(sums[0][gate], weights_[0][gate][b],
                               columns(q, columns_[gate][b]).words);
        } else if (part() * kBlocks + b < fragments) {
          const Words2 of_h = columns(q, part() * kBlocks + b);
          LFK_UNROLLED (tile, kTiles) {
            LFK_UNROLLED (gate, kWarpGates)
              device::mma_s8s8(sums[tile][gate], weights_[tile][gate][b], of_h.words);
          }
        }
      }
      store_sums(sums, first, active);
    }
  }

  LFK_DEVICE static Words2 columns(const uint8_t *q, int column) {
    return *reinterpret_cast<const Words2 *>(q + column * kFragmentColumns);
  }

  LFK_DEVICE void store_sums(const int32_t (&sums)[kTiles][kWarpGates][4], int first,
                             int active) const {
    int32_t *to = at<int32_t>(layout_.sums) + part() * kBlockRows * layout_.sums_stride;
    LFK_UNROLLED (tile, kTiles) {
      LFK_UNROLLED (gate, kWarpGates) {
        LFK_UNROLLED (i, 4) {
          const int row =
              (tile * kGates + first_gate() + gate) * kStripHeight + device::lane() / 4 + i / 2 * 8;
          const int n = first + device::lane() % 4 * 2 + i % 2;
          if (n < active)
            to[row * layout_.sums_stride + n] = sums[tile][gate][i];
        }
      }
    }
  }

  // Calls visit(row, unit) for this thread's units of rows.
  template <class Visit> LFK_DEVICE void for_each_unit(int rows, const Visit &visit) const {
    for (int i = device::thread_index(); i < rows * kUnits; i += kPersistentThreads)
      if (i % kUnits < tiles_ * kStripHeight)
        visit(i / kUnits, i % kUnits);
  }

  LFK_DEVICE void finish_unit(int64_t k, const Step &s, int row, int unit) {
    const int tile_row = unit / kStripHeight * kTileHeight + unit % kStripHeight;
    const float *scales =
        row < s.first ? buffers_.scales(k % 2) : at<const float>(layout_.first_scales);
    const int32_t *sums = at<const int32_t>(layout_.sums) + row;
    const float *in = gates(k) + row * layout_.gates_stride;
    float gates[kGates];
    LFK_UNROLLED (g, kGates) {
      const int r = tile_row + g * kStripHeight;
      int32_t sum = 0;
      LFK_UNROLLED (p, kParts)
        sum += sums[(p * kBlockRows + r) * layout_.sums_stride];
      gates[g] = std::fma(static_cast<float>(sum),
                          scales[row] * at<const float>(layout_.weight_scales)[r], in[r]);
    }
    const int at_unit = row * kUnits + unit;
    const float h = update_cell(gates, at<float>(layout_.c)[at_unit]);
    at<float>(layout_.last_h)[at_unit] = h;
    if (std::isnan(h))
      buffers_.own_nans[row] = 1;
    store_quantized<Form::signed8>(buffers_.own, at_unit, h, static_cast<float>(kQuantizedMax),
                                   kQuantizedMax);
  }

  LFK_DEVICE void store_y(const Step &s, int row, int unit, float h) const {
    const int u = first_tile_ * kStripHeight + unit;
    if (u < a_.hidden_size)
      store_value(a_.y.at(a_.rows, s.t, row, s.row + row), a_.y.type, u, h);
  }

  // What is left of this block's outputs becomes NaN, and the host hears of it.
  LFK_DEVICE void fail(int64_t step) {
    for (; step < a_.end; ++step) {
      const Step s = step_at(step);
      for_each_unit(s.active, [&](int row, int unit) { store_y(s, row, unit, NAN); });
    }
    for (int i = device::thread_index(); i < a_.rows.batch * kUnits; i += kPersistentThreads)
      at<float>(layout_.c)[i] = at<float>(layout_.last_h)[i] = NAN;
    for (int i = device::thread_index(); i < kPersistentRows; i += kPersistentThreads)
      buffers_.own_nans[i] = 1;
    if (device::thread_index() == 0)
      *a_.failed = 1;
    device::sync_threads();
  }

  // For the caller, or for the launch that goes on.
  LFK_DEVICE void store_state() {
    const int rows = static_cast<int>(a_.rows.batch), first_unit = first_tile_ * kStripHeight;
    for_each_unit(rows, [&](int row, int unit) {
      const int64_t to = row * a_.units_stride + first_unit + unit;
      a_.c[to] = at<float>(layout_.c)[row * kUnits + unit];
      a_.last_h[to] = at<float>(layout_.last_h)[row * kUnits + unit];
    });
    const QuantizedRows &to = a_.h[a_.end % 2];
    const int active = step_at(a_.end - 1).active; // others have not started, or are done
    for_each_unit(active, [&](int row, int unit) {
      to.data[row * to.stride + first_unit + unit] = buffers_.own[row * kUnits + unit];
    });
    for (int row = device::thread_index(); row < active; row += kPersistentThreads)
      if (buffers_.own_nans[row])
        to.scales[row] = NAN;
  }

  static constexpr int32_t kQuantizedMax = 127;

  const PersistentArguments &a_;
  const SharedLayout layout_;
  uint8_t *const memory_;
  const int block_, first_tile_, tiles_; // tiles_ may be 0: a block that fills up a cluster
  const ExchangeBuffers buffers_;
  Exchange exchange_;
  uint32_t weights_[kTiles][kWarpGates][kBlocks][4];
  int columns_[kWarpGates][kBlocks]; // sparse only
  int counts_[kWarpGates];
};

template <class Exchange, int kParts, int kBlocks, bool kSparse>
LFK_KERNEL(kPersistentThreads, 1)
persistent_kernel(LFK_PARAMETERS(Both<PersistentArguments>) both) {
  PersistentBlock<Exchange, kParts, kBlocks, kSparse>(both.of[device::block_index().z]).run();
}

} // namespace cuda
} // namespace lstm_fastkernels
