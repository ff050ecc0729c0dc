// Products of a strip's blocks with rows of quantized activations, by the warps of a block.
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
template <Form F> using LaneColumns = std::conditional_t<F == Form::signed16, Words4, Words2>;

template <Form F> LFK_DEVICE LaneColumns<F> load_columns(const uint8_t *q) {
  return *reinterpret_cast<const LaneColumns<F> *>(q);
}

// A lane's sums of 16 rows with 8 activation rows: sum[0], sum[1] are row lane / 4 with activation
// rows 2 (lane % 4) and the one after it, sum[2], sum[3] are row lane / 4 + 8.
template <Form F> struct Sums {
  static_assert(F == Form::signed8);
  int32_t sum[4] = {};

  // The columns are of activation row lane / 4.
  LFK_DEVICE void add(const uint32_t (&weights)[4], const LaneColumns<F> &columns) {
    device::mma_s8s8(sum, weights, columns.words);
  }
  LFK_DEVICE int32_t operator[](int i) const { return sum[i]; }
};

// 16-bit activations are a signed high and an unsigned low byte.
template <> struct Sums<Form::signed16> {
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
  // Exact, though the parts may have wrapped around: the whole fits int32.
  LFK_DEVICE int32_t operator[](int i) const {
    return static_cast<int32_t>(256u * static_cast<uint32_t>(high[i]) +
                                static_cast<uint32_t>(low[i]));
  }
};

// Bytes of a lane's 8 columns, and of the 32 columns of a block.
LFK_HOST_DEVICE constexpr int lane_bytes(Form form) { return 8 * activation_bytes(form); }
LFK_HOST_DEVICE constexpr int block_row_bytes(Form form) {
  return kFragmentColumns * activation_bytes(form);
}

LFK_DEVICE Words4 load_fragment(const Matrix &matrix, uint32_t position) {
  return *reinterpret_cast<const Words4 *>(matrix.blocks + int64_t{position} * kFragmentBytes +
                                           device::lane() * int{sizeof(Words4)});
}

// One row's sum, float32: products one by one in the order of columns. `row` counts within the
// strip.
LFK_DEVICE float ordered_sum(const Matrix &matrix, int strip, int row, const uint8_t *q) {
  struct alignas(16) Floats {
    float value[kFloatColumns];
  };
  const Floats *weights = reinterpret_cast<const Floats *>(matrix.blocks);
  const Floats *x = reinterpret_cast<const Floats *>(q);
  float sum = 0.0f;
  for (uint32_t i = matrix.starts[strip]; i < matrix.starts[strip + 1]; ++i) {
    const Floats w = weights[int64_t{i} * kStripHeight + row], v = x[matrix.columns[i]];
    for (int k = 0; k < kFloatColumns; ++k)
      sum = std::fma(w.value[k], v.value[k], sum);
  }
  return sum;
}

} // namespace cuda
} // namespace lstm_fastkernels
