// Products of a band's fragments with rows of quantized activations, by the warps of a block.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "cuda/kernels/device.h"
#include "cuda/kernels/device_matrix.h"

namespace lstm_fastkernels {
namespace cuda {

using device::Words4;

struct alignas(8) Words2 {
  uint32_t words[2];
};

// A lane's 8 columns of activations.
template <Arithmetic F>
using LaneColumns = std::conditional_t<F == Arithmetic::signed16, Words4, Words2>;

template <Arithmetic F> LFK_DEVICE LaneColumns<F> load_columns(const uint8_t *q) {
  return *reinterpret_cast<const LaneColumns<F> *>(q);
}

// A lane's sums of a band with 8 activation rows: sum[0] and sum[1] are weight row lane / 4 with
// activation rows 2 (lane % 4) and 2 (lane % 4) + 1; sum[2] and sum[3] are weight row lane / 4 + 8.
template <Arithmetic F> struct Sums {
  static_assert(F == Arithmetic::any8);
  int32_t sum[4] = {};

  // `columns` belong to activation row lane / 4.
  LFK_DEVICE void add(const uint32_t (&weights)[4], const LaneColumns<F> &columns) {
    device::mma_s8u8(sum, weights, columns.words);
  }
  LFK_DEVICE int32_t operator[](int i) const { return sum[i]; }
};

// 16-bit activations: a signed high byte and an unsigned low byte, each with sums of its own.
template <> struct Sums<Arithmetic::signed16> {
  int32_t high[4] = {}, low[4] = {};

  LFK_DEVICE void add(const uint32_t (&weights)[4], const Words4 &columns) {
    uint32_t highs[2], lows[2];
    LFK_UNROLLED (i, 2) {
      lows[i] = device::permute_bytes(columns.words[2 * i], columns.words[2 * i + 1], 0x6420);
      highs[i] = device::permute_bytes(columns.words[2 * i], columns.words[2 * i + 1], 0x7531);
    }
    device::mma_s8s8(high, weights, highs);
    device::mma_s8u8(low, weights, lows);
  }
  // Exact: the parts may wrap around, but the whole fits int32.
  LFK_DEVICE int32_t operator[](int i) const {
    return static_cast<int32_t>(256u * static_cast<uint32_t>(high[i]) +
                                static_cast<uint32_t>(low[i]));
  }
};

// 4-bit weights: sums of a group of columns, and the values that groups have added up to.
template <> struct Sums<Arithmetic::int4> {
  int32_t sum[4] = {};
  float value[4] = {};

  LFK_DEVICE void add(const uint32_t (&weights)[4], const LaneColumns<Arithmetic::int4> &columns) {
    device::mma_s8u8(sum, weights, columns.words);
  }
  LFK_DEVICE float operator[](int i) const { return value[i]; }
};

// The weight row of a band and the activation row of 8 that a lane's sum i belongs to.
LFK_DEVICE int weight_row_of(int i) { return device::lane() / 4 + i / 2 * 8; }
LFK_DEVICE int activation_row_of(int i) { return device::lane() % 4 * 2 + i % 2; }

// Before the first fragment of a band: what zero points, zero_point(i) of sum i, take away.
template <Arithmetic F, class ZeroPoint>
LFK_DEVICE void start_sums(Sums<F> &sums, const DeviceMatrix &matrix, int band,
                           const ZeroPoint &zero_point) {
  if constexpr (F == Arithmetic::int4) {
    const float *const row_sums = reinterpret_cast<const float *>(matrix.row_sums);
    LFK_UNROLLED (i, 4)
      sums.value[i] =
          static_cast<float>(-zero_point(i)) * row_sums[band * kBandHeight + weight_row_of(i)];
  }
}

// After the fragment of a band at `column`: the end of a group adds its sums to the values.
template <Arithmetic F>
LFK_DEVICE void end_fragment(Sums<F> &sums, const DeviceMatrix &matrix, int band, int column) {
  if constexpr (F == Arithmetic::int4) {
    const int group = column / matrix.scale_fragments;
    if ((column + 1) % matrix.scale_fragments &&
        (column + 1) * kFragmentColumns < matrix.num_columns)
      return;
    const float *const scales =
        matrix.scales +
        (int64_t{band / kBandsPerTile} * matrix.scale_groups + group) * kTileHeight +
        band % kBandsPerTile * kBandHeight;
    LFK_UNROLLED (i, 4) {
      sums.value[i] =
          std::fma(static_cast<float>(sums.sum[i]), scales[weight_row_of(i)], sums.value[i]);
      sums.sum[i] = 0;
    }
  }
}

// What the values of a row's sums are multiplied with, beside the activations' scale.
template <Arithmetic F> LFK_DEVICE float row_scale(const DeviceMatrix &matrix, int64_t row) {
  return F == Arithmetic::int4 ? 1.0f : matrix.scales[row];
}

// Bytes of activations in a lane's 8 columns, and in the 32 columns of a fragment.
LFK_HOST_DEVICE constexpr int lane_bytes(Arithmetic arithmetic) {
  return 8 * activation_bytes(arithmetic);
}
LFK_HOST_DEVICE constexpr int fragment_row_bytes(Arithmetic arithmetic) {
  return kFragmentColumns * activation_bytes(arithmetic);
}

// What the zero point of activations adds to their sum with a weight row.
template <Arithmetic F>
LFK_DEVICE int32_t zero_offset(const DeviceMatrix &matrix, int64_t row, int32_t zero_point) {
  return F == Arithmetic::any8 ? zero_point * matrix.row_sums[row] : 0;
}

LFK_DEVICE Words4 load_fragment(const DeviceMatrix &matrix, uint32_t position) {
  return *reinterpret_cast<const Words4 *>(matrix.fragments + int64_t{position} * kFragmentBytes +
                                           device::lane() * int{sizeof(Words4)});
}

// The sum of one row of a band in float32, column by column in ascending order.
LFK_DEVICE float ordered_sum(const DeviceMatrix &matrix, int band, int row, const uint8_t *q) {
  struct alignas(16) Floats {
    float value[kFloatColumns];
  };
  const Floats *weights = reinterpret_cast<const Floats *>(matrix.fragments);
  const Floats *x = reinterpret_cast<const Floats *>(q);
  float sum = 0.0f;
  for (uint32_t i = matrix.starts[band]; i < matrix.starts[band + 1]; ++i) {
    const Floats w = weights[int64_t{i} * kBandHeight + row], v = x[matrix.columns[i]];
    for (int k = 0; k < kFloatColumns; ++k)
      sum = std::fma(w.value[k], v.value[k], sum);
  }
  return sum;
}

} // namespace cuda
} // namespace lstm_fastkernels
