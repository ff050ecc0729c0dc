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
  int64_t x, h, ih_sums, hh_sums, scales, zero_points, bytes;
};

template <Arithmetic Ih, Arithmetic Hh>
LFK_HOST_DEVICE SharedOffsets shared_offsets(int64_t input, int64_t hidden) {
  SharedOffsets o;
  o.x = 0;
  o.h = o.x + kRows * shared_stride(Ih, input);
  o.ih_sums = o.h + kRows * shared_stride(Hh, hidden);
  o.hh_sums = o.ih_sums + static_cast<int64_t>(BlockSums<Ih>::kBytes);
  o.scales = o.hh_sums + static_cast<int64_t>(BlockSums<Hh>::kBytes);
  o.zero_points = o.scales + 2 * kRows * int64_t{sizeof(float)};
  o.bytes = o.zero_points + 2 * kRows * int64_t{sizeof(int32_t)};
  return o;
}

LFK_DEVICE float state_at(const SingleStepArguments &a, const void *state, int64_t row, int64_t i) {
  return state ? load_value(state, a.state_type, a.rows.caller_row(row) * a.hh.num_columns + i)
               : 0.0f;
}

// Each warp quantizes some of the block's rows: those of the input first, then those of h.
template <Arithmetic Ih, Arithmetic Hh>
LFK_DEVICE void quantize_rows_of_block(const SingleStepArguments &a, int64_t first, int count,
                                       const QuantizedRows &x, const QuantizedRows &h) {
  for (int n = warp(); n < 2 * count; n += kStepWarps) {
    const int local = n % count;
    const int64_t row = first + local;
    if (n < count) {
      const uint8_t *in = a.x.at(a.rows, 0, row, row);
      quantize_row<Ih>(target_of(a.ih, RowKind::any), true, x, local,
                       [&](int64_t i) { return load_value(in, a.x.type, i); });
    } else {
      bool finite = true;
      for (int i = lane(); i < a.hh.num_columns; i += kLanes)
        finite = finite && std::isfinite(state_at(a, a.c0, row, i));
      quantize_row<Hh>(target_of(a.hh, RowKind::bounded), finite, h, local,
                       [&](int64_t i) { return state_at(a, a.h0, row, i); });
    }
  }
}

template <Arithmetic Ih, Arithmetic Hh>
LFK_KERNEL(kStepThreads, 1)
single_step_kernel(LFK_PARAMETERS(Directions<SingleStepArguments>) all) {
  const SingleStepArguments &a = all.of[block_index().z];
  const int tile = block_index().y;
  const int64_t first = int64_t{block_index().x} * kRows;
  const int count = static_cast<int>(a.rows.batch - first < kRows ? a.rows.batch - first : kRows);
  uint8_t *const shared = shared_memory<uint8_t>();
  const SharedOffsets at = shared_offsets<Ih, Hh>(a.ih.num_columns, a.hh.num_columns);
  float *const scales = reinterpret_cast<float *>(shared + at.scales);
  int32_t *const zero_points = reinterpret_cast<int32_t *>(shared + at.zero_points);
  const QuantizedRows x{shared + at.x, shared_stride(Ih, a.ih.num_columns), scales, zero_points};
  const QuantizedRows h{shared + at.h, shared_stride(Hh, a.hh.num_columns), scales + kRows,
                        zero_points + kRows};
  quantize_rows_of_block<Ih, Hh>(a, first, count, x, h);
  sync_threads();

  const BlockSums<Ih> ih(shared + at.ih_sums);
  const BlockSums<Hh> hh(shared + at.hh_sums);
  ih.arithmetic(a.ih, tile, x, 0, count);
  hh.arithmetic(a.hh, tile, h, 0, count);
  sync_threads();

  for (int i = thread_index(); i < kBandHeight * count; i += kStepThreads) {
    const int n = i / kBandHeight, unit = i % kBandHeight;
    const int64_t u = int64_t{tile} * kBandHeight + unit, row = first + n;
    if (u >= a.hh.num_columns)
      continue;
    float gates[kGates];
    for (int g = 0; g < kGates; ++g) {
      const int64_t r = int64_t{tile} * kTileHeight + g * kBandHeight + unit;
      gates[g] = hh.scaled(a.hh, r, h, 0, n, ih.scaled(a.ih, r, x, 0, n, a.bias[r]));
    }
    float c = state_at(a, a.c0, row, u);
    const float h_of_unit = update_cell(gates, c);
    const int64_t to = a.rows.caller_row(row) * a.hh.num_columns + u;
    store_value(a.h_n, a.state_type, to, h_of_unit);
    store_value(a.c_n, a.state_type, to, c);
    store_value(a.y.at(a.rows, 0, row, row), a.y.type, u, h_of_unit);
  }
}

// visit(ih's, hh's) as with_arithmetic does.
template <class Visit>
auto with_both(const DeviceMatrix &ih, const DeviceMatrix &hh, const Visit &visit) {
  return with_arithmetic(ih.arithmetic(), [&](auto of_ih) {
    return with_arithmetic(hh.arithmetic(), [&](auto of_hh) { return visit(of_ih, of_hh); });
  });
}

} // namespace

size_t single_step_shared_bytes(const DeviceMatrix &ih, const DeviceMatrix &hh) {
  return static_cast<size_t>(with_both(ih, hh, [&](auto of_ih, auto of_hh) {
    return shared_offsets<of_ih, of_hh>(ih.num_columns, hh.num_columns).bytes;
  }));
}

void single_step(const Directions<SingleStepArguments> &all, void *stream) {
  const SingleStepArguments &a = all.of[0];
  Launch shape;
  shape.threads = kStepThreads;
  shape.shared_bytes = single_step_shared_bytes(a.ih, a.hh);
  shape.grid = {static_cast<int>(divide_up(a.rows.batch, kRows)), a.hh.num_tiles, all.count};
  with_both(a.ih, a.hh,
            [&](auto ih, auto hh) { launch(single_step_kernel<ih, hh>, shape, stream, all); });
}

} // namespace cuda
} // namespace lstm_fastkernels
