// A block has a tile and 8 rows. Each block quantizes the rows' inputs and h for itself and
// computes both matrices' sums; then each thread finishes units of rows.
#include "cuda/kernels/single_step.h"

#include <algorithm>
#include <cmath>

#include "common/numerics.h"
#include "common/rounding.h"
#include "cuda/kernels/device.h"
#include "cuda/kernels/quantize_row.h"
#include "cuda/kernels/tile_sums.h"
#include "cuda/kernels/values.h"

namespace lstm_fastkernels {
namespace cuda {
namespace {

using namespace device;

constexpr int kRows = 8;

template <Arithmetic F> using BlockSums = TileSums<F, kRows / 8>;

// Bytes from row to row; neighbouring lanes read different banks.
LFK_HOST_DEVICE int64_t shared_stride(Arithmetic arithmetic, int64_t columns) {
  return (quantized_bytes(arithmetic, columns) + 127) / 128 * 128 + 4 * lane_bytes(arithmetic);
}

// Byte offsets of a block's arrays.
struct SharedOffsets {
  int64_t x, h, ih_sums, hh_sums, scales, bytes;
};

template <Arithmetic F>
LFK_HOST_DEVICE SharedOffsets shared_offsets(int64_t input, int64_t hidden) {
  SharedOffsets o;
  o.x = 0;
  o.h = o.x + kRows * shared_stride(F, input);
  o.ih_sums = o.h + kRows * shared_stride(F, hidden);
  o.hh_sums = o.ih_sums + static_cast<int64_t>(BlockSums<F>::kBytes);
  o.scales = o.hh_sums + static_cast<int64_t>(BlockSums<F>::kBytes);
  o.bytes = o.scales + 2 * kRows * int64_t{sizeof(float)};
  return o;
}

LFK_DEVICE float state_at(const SingleStepArguments &a, const void *state, int64_t row, int64_t i) {
  return state ? load_value(state, a.state_type, a.rows.caller_row(row) * a.hidden_size + i) : 0.0f;
}

// Each warp quantizes some of the block's rows: those of the input first, then those of h.
template <Arithmetic F>
LFK_DEVICE void quantize_rows_of_block(const SingleStepArguments &a, int64_t first, int count,
                                       const QuantizedRows &x, const QuantizedRows &h) {
  for (int n = warp(); n < 2 * count; n += kStepWarps) {
    const int local = n % count;
    const int64_t row = first + local;
    RowScale by;
    if (n < count) {
      const uint8_t *in = a.x.at(a.rows, 0, row, row);
      by = quantize_row<F>(a.input_size, a.x_min_absmax, a.ih.activation_max, true, x, local,
                           [&](int64_t i) { return load_value(in, a.x.type, i); });
    } else {
      bool finite = true;
      for (int i = lane(); i < a.hidden_size; i += kLanes)
        finite = finite && std::isfinite(state_at(a, a.c0, row, i));
      finite = !any_lane(!finite);
      by = quantize_row<F>(a.hidden_size, 1.0f, a.hh.activation_max, finite, h, local,
                           [&](int64_t i) { return state_at(a, a.h0, row, i); });
    }
    if (lane() == 0)
      (n < count ? x : h).scales[local] = by.scale;
  }
}

template <Arithmetic F>
LFK_KERNEL(kStepThreads, 1)
single_step_kernel(LFK_PARAMETERS(Directions<SingleStepArguments>) all) {
  const SingleStepArguments &a = all.of[block_index().z];
  const int tile = block_index().y;
  const int64_t first = int64_t{block_index().x} * kRows;
  const int count = static_cast<int>(a.rows.batch - first < kRows ? a.rows.batch - first : kRows);
  uint8_t *const shared = shared_memory<uint8_t>();
  const SharedOffsets at = shared_offsets<F>(a.input_size, a.hidden_size);
  float *const scales = reinterpret_cast<float *>(shared + at.scales);
  const QuantizedRows x{shared + at.x, shared_stride(F, a.input_size), scales};
  const QuantizedRows h{shared + at.h, shared_stride(F, a.hidden_size), scales + kRows};
  quantize_rows_of_block<F>(a, first, count, x, h);
  sync_threads();

  const BlockSums<F> ih(shared + at.ih_sums), hh(shared + at.hh_sums);
  ih.arithmetic(a.ih, tile, x, 0, count);
  hh.arithmetic(a.hh, tile, h, 0, count);
  sync_threads();

  for (int i = thread_index(); i < kBandHeight * count; i += kStepThreads) {
    const int n = i / kBandHeight, unit = i % kBandHeight;
    const int64_t u = int64_t{tile} * kBandHeight + unit, row = first + n;
    if (u >= a.hidden_size)
      continue;
    float gates[kGates];
    for (int g = 0; g < kGates; ++g) {
      const int r = g * kBandHeight + unit;
      const int64_t of_matrix = int64_t{tile} * kTileHeight + r;
      const float in =
          std::fma(ih.at(r, n), x.scales[n] * a.ih.scales[of_matrix], a.bias[of_matrix]);
      gates[g] = std::fma(hh.at(r, n), h.scales[n] * a.hh.scales[of_matrix], in);
    }
    float c = state_at(a, a.c0, row, u);
    const float h_of_unit = update_cell(gates, c);
    const int64_t to = a.rows.caller_row(row) * a.hidden_size + u;
    store_value(a.h_n, a.state_type, to, h_of_unit);
    store_value(a.c_n, a.state_type, to, c);
    store_value(a.y.at(a.rows, 0, row, row), a.y.type, u, h_of_unit);
  }
}

template <Arithmetic F>
void launch_single_step(const Directions<SingleStepArguments> &all, void *stream) {
  const SingleStepArguments &a = all.of[0];
  Launch shape;
  shape.threads = kStepThreads;
  shape.shared_bytes = single_step_shared_bytes(F, a.input_size, a.hidden_size);
  shape.grid = {static_cast<int>(divide_up(a.rows.batch, kRows)), a.hh.num_tiles, all.count};
  launch(single_step_kernel<F>, shape, stream, all);
}

} // namespace

size_t single_step_shared_bytes(Arithmetic arithmetic, int64_t input_size, int64_t hidden_size) {
  return static_cast<size_t>(with_arithmetic(
      arithmetic, [&](auto f) { return shared_offsets<f>(input_size, hidden_size).bytes; }));
}

void single_step(Arithmetic arithmetic, const Directions<SingleStepArguments> &all, void *stream) {
  with_arithmetic(arithmetic, [&](auto f) { launch_single_step<f>(all, stream); });
}

} // namespace cuda
} // namespace lstm_fastkernels
