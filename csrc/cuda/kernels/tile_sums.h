// Products of a tile, the four gates of 16 units, with 8 kGroups rows of quantized activations, by
// a block of 16 warps. int8 and int16: warp w computes gate w % 4 over a part of its fragments; the
// parts are added in shared memory. 4-bit weights: a part of the warps computes whole values for a
// part of the rows. float32: a thread computes whole sums.
#pragma once

#include <cmath>

#include "cuda/kernels/device.h"
#include "cuda/kernels/fragments.h"
#include "cuda/kernels/rows.h"

namespace lstm_fastkernels {
namespace cuda {

constexpr int kStepWarps = 16;
constexpr int kStepThreads = kStepWarps * 32;

template <Arithmetic F, int kGroups> class TileSums {
public:
  static constexpr bool kWhole = F == Arithmetic::float32 || F == Arithmetic::int4;
  static constexpr int kWarpsAGate = kStepWarps / kGates;
  // Partial sums of a row.
  static constexpr int kParts = kWhole ? 1 : kWarpsAGate;
  // [part][row of the tile][activation row], of int32 or float.
  static constexpr int kStride = kGroups * 8 + 1;
  static constexpr size_t kBytes = sizeof(float) * kParts * kTileHeight * kStride;

  LFK_DEVICE explicit TileSums(uint8_t *shared) : shared_(shared) {}

  // For activation rows first .. first + 8 kGroups - 1 of `count`.
  LFK_DEVICE void arithmetic(const DeviceMatrix &m, int tile, const QuantizedRows &x, int first,
                             int count) const {
    if constexpr (F == Arithmetic::float32)
      form_floats(m, tile, x, first, count);
    else if constexpr (F == Arithmetic::int4)
      form_values(m, tile, x, first, count);
    else
      form_integers(m, tile, x, first, count);
  }

  // fma(sum, the activation row's scale * the weight row's, addend) for weight row `weight_row` of
  // the matrix and activation row first + n; call after a barrier.
  LFK_DEVICE float scaled(const DeviceMatrix &m, int64_t weight_row, const QuantizedRows &x,
                          int first, int n, float addend) const {
    const int32_t offset = zero_offset<F>(m, weight_row, x.zero_points[first + n]);
    return std::fma(sum(static_cast<int>(weight_row % kTileHeight), n, offset),
                    x.scales[first + n] * row_scale<F>(m, weight_row), addend);
  }

private:
  LFK_DEVICE float sum(int row, int n, int32_t offset) const {
    const int place = row * kStride + n;
    if constexpr (kWhole) {
      return reinterpret_cast<const float *>(shared_)[place];
    } else {
      int32_t sum = -offset;
      for (int part = 0; part < kParts; ++part)
        sum += reinterpret_cast<const int32_t *>(shared_)[part * kTileHeight * kStride + place];
      return static_cast<float>(sum);
    }
  }

  LFK_DEVICE void form_integers(const DeviceMatrix &m, int tile, const QuantizedRows &x, int first,
                                int count) const {
    const int part = device::warp() / kGates, gate = device::warp() % kGates;
    const uint32_t begin = m.starts[tile * kGates + gate];
    const uint32_t fragments = m.starts[tile * kGates + gate + 1] - begin;
    const uint8_t *q[kGroups];
    for (int group = 0; group < kGroups; ++group) {
      const int row = first + group * 8 + device::lane() / 4;
      q[group] =
          x.data + (row < count ? row : count - 1) * x.stride + device::lane() % 4 * lane_bytes(F);
    }
    Sums<F> sums[kGroups];
    const uint32_t end = begin + fragments * (part + 1) / kParts;
    for (uint32_t i = begin + fragments * part / kParts; i < end; ++i) {
      const Words4 weights = load_fragment(m, i);
      const int64_t column = int64_t{m.columns[i]} * fragment_row_bytes(F);
      for (int group = 0; group < kGroups; ++group)
        sums[group].add(weights.words, load_columns<F>(q[group] + column));
    }
    for (int group = 0; group < kGroups; ++group)
      store(sums[group], part * kTileHeight + gate * kBandHeight, group * 8);
  }

  // Each part of the warps takes every kWarpsAGate-th 8 rows.
  LFK_DEVICE void form_values(const DeviceMatrix &m, int tile, const QuantizedRows &x, int first,
                              int count) const {
    const int gate = device::warp() % kGates, band = tile * kGates + gate;
    for (int group = device::warp() / kGates; group < kGroups; group += kWarpsAGate) {
      const auto clamped = [&](int row) { return row < count ? row : count - 1; };
      const uint8_t *const q = x.data + clamped(first + group * 8 + device::lane() / 4) * x.stride +
                               device::lane() % 4 * lane_bytes(F);
      Sums<F> sums;
      start_sums(sums, m, band, [&](int i) {
        return x.zero_points[clamped(first + group * 8 + activation_row_of(i))];
      });
      for (uint32_t i = m.starts[band]; i < m.starts[band + 1]; ++i) {
        const int column = m.columns[i];
        sums.add(load_fragment(m, i).words,
                 load_columns<F>(q + int64_t{column} * fragment_row_bytes(F)));
        end_fragment(sums, m, band, column);
      }
      store(sums, gate * kBandHeight, group * 8);
    }
  }

  // A lane's sums, of a band that begins at `row` and 8 activation rows that begin at `n`.
  LFK_DEVICE void store(const Sums<F> &sums, int row, int n) const {
    using Sum = decltype(sums[0] + 0);
    for (int i = 0; i < 4; ++i)
      reinterpret_cast<Sum *>(
          shared_)[(row + weight_row_of(i)) * kStride + n + activation_row_of(i)] = sums[i];
  }

  LFK_DEVICE void form_floats(const DeviceMatrix &m, int tile, const QuantizedRows &x, int first,
                              int count) const {
    const int row = device::thread_index() % kTileHeight;
    for (int n = device::thread_index() / kTileHeight; n < kGroups * 8;
         n += kStepThreads / kTileHeight)
      if (first + n < count)
        reinterpret_cast<float *>(shared_)[row * kStride + n] =
            ordered_sum(m, tile * kGates + row / kBandHeight, row % kBandHeight,
                        x.data + (first + n) * x.stride);
  }

  uint8_t *const shared_;
};

} // namespace cuda
} // namespace lstm_fastkernels
