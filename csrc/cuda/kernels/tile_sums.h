// Products of a tile, the four gates of 16 units, with 8 kGroups rows of quantized activations, by
// a block of 16 warps. int8 and int16: warp w computes gate w % 4 over a part of its fragments; the
// parts are added in shared memory. float32: a thread computes whole sums.
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
  // Partial sums of a row.
  static constexpr int kParts = F == Arithmetic::float32 ? 1 : kStepWarps / kGates;
  // [part][row of the tile][activation row], of int32 or float.
  static constexpr int kStride = kGroups * 8 + 1;
  static constexpr size_t kBytes = sizeof(float) * kParts * kTileHeight * kStride;

  LFK_DEVICE explicit TileSums(uint8_t *shared) : shared_(shared) {}

  // For activation rows first .. first + 8 kGroups - 1 of `count`.
  LFK_DEVICE void arithmetic(const DeviceMatrix &m, int tile, const QuantizedRows &x, int first,
                             int count) const {
    if constexpr (F == Arithmetic::float32)
      form_floats(m, tile, x, first, count);
    else
      form_integers(m, tile, x, first, count);
  }

  // fma(sum, the activation row's scale * the weight row's, addend) for weight row `weight_row` of
  // the matrix and activation row first + n; call after a barrier.
  LFK_DEVICE float scaled(const DeviceMatrix &m, int64_t weight_row, const QuantizedRows &x,
                          int first, int n, float addend) const {
    const int32_t offset = zero_offset<F>(m, weight_row, x.zero_points[first + n]);
    return std::fma(sum(static_cast<int>(weight_row % kTileHeight), n, offset),
                    x.scales[first + n] * m.scales[weight_row], addend);
  }

private:
  LFK_DEVICE float sum(int row, int n, int32_t offset) const {
    const int place = row * kStride + n;
    if constexpr (F == Arithmetic::float32) {
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
    const int row = part * kTileHeight + gate * kBandHeight + device::lane() / 4;
    for (int group = 0; group < kGroups; ++group)
      for (int i = 0; i < 4; ++i)
        reinterpret_cast<int32_t *>(
            shared_)[(row + i / 2 * 8) * kStride + group * 8 + device::lane() % 4 * 2 + i % 2] =
            sums[group][i];
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
