// One time step: recurrent products, gates, c, h and the quantized h, in one launch.
//
// A block has a tile, the four gates of 16 units, and 8 or 32 rows. int8 and int16: warp w forms
// gate w % 4 over a part of its blocks; the parts meet in shared memory. float32: a thread forms
// whole sums. Then a thread takes a unit of a row.
#include <algorithm>
#include <cmath>

#include "device.h"
#include "fragments.h"
#include "plain_kernels.h"
#include "values.h"

namespace lstm_fastkernels {
namespace cuda {
namespace {

using namespace device;

constexpr int kGates = 4;
constexpr int kWarps = 16;
constexpr int kThreads = kWarps * 32;

// Parts into which the sums of a row are cut.
template <Form F> constexpr int kParts = F == Form::float32 ? 1 : kWarps / kGates;

// [part][row of the tile][activation row], of int32 or float.
template <int kGroups> constexpr int kSharedStride = kGroups * 8 + 1;
template <Form F, int kGroups>
constexpr size_t kSharedBytes = sizeof(float) * kParts<F> * kTileHeight * kSharedStride<kGroups>;

template <Form F, int kGroups>
LFK_DEVICE void form_sums(const StepArguments &a, int tile, int first, int32_t *shared) {
  const int part = warp() / kGates, strip = tile * kGates + warp() % kGates;
  const uint32_t begin = a.hh.starts[strip], blocks = a.hh.starts[strip + 1] - begin;
  const uint8_t *q[kGroups];
  for (int group = 0; group < kGroups; ++group) {
    const int row = first + group * 8 + lane() / 4;
    q[group] = a.h_in.data + (row < a.active ? row : a.active - 1) * a.h_in.stride +
               lane() % 4 * lane_bytes(F);
  }
  Sums<F> sums[kGroups];
  const uint32_t end = begin + blocks * (part + 1) / kParts<F>;
  for (uint32_t i = begin + blocks * part / kParts<F>; i < end; ++i) {
    const Words4 weights = load_fragment(a.hh, i);
    const int64_t column = int64_t{a.hh.columns[i]} * block_row_bytes(F);
    for (int group = 0; group < kGroups; ++group)
      sums[group].add(weights.word, q[group] + column);
  }
  const int row = part * kTileHeight + warp() % kGates * kStripHeight + lane() / 4;
  for (int group = 0; group < kGroups; ++group)
    for (int i = 0; i < 4; ++i)
      shared[(row + i / 2 * 8) * kSharedStride<kGroups> + group * 8 + lane() % 4 * 2 + i % 2] =
          sums[group][i];
}

template <int kGroups>
LFK_DEVICE void form_float_sums(const StepArguments &a, int tile, int first, float *shared) {
  const int row = thread_index() % kTileHeight;
  for (int n = thread_index() / kTileHeight; n < kGroups * 8; n += kThreads / kTileHeight)
    if (first + n < a.active)
      shared[row * kSharedStride<kGroups> + n] =
          ordered_sum(a.hh, tile * kGates + row / kStripHeight, row % kStripHeight,
                      a.h_in.data + (first + n) * a.h_in.stride);
}

// The sum of a tile's row with activation row n.
template <Form F, int kGroups> LFK_DEVICE float sum_at(int row, int n) {
  const int at = row * kSharedStride<kGroups> + n;
  if constexpr (F == Form::float32) {
    return shared_memory<float>()[at];
  } else {
    int32_t sum = 0;
    for (int part = 0; part < kParts<F>; ++part)
      sum += shared_memory<int32_t>()[part * kTileHeight * kSharedStride<kGroups> + at];
    return static_cast<float>(sum);
  }
}

template <Form F, int kGroups>
LFK_DEVICE void finish_unit(const StepArguments &a, int tile, int unit, int row, int n) {
  const int64_t tile_row = int64_t{tile} * kTileHeight + unit;
  const float scale = (row < a.first_row ? a.h_in.scales : a.first_scales)[row];
  const float *in = a.input_gates + row * a.hh.padded_rows() + tile_row;
  float gates[kGates];
  for (int g = 0; g < kGates; ++g) {
    const int i = g * kStripHeight;
    gates[g] = std::fma(sum_at<F, kGroups>(i + unit, n), scale * a.hh.scales[tile_row + i], in[i]);
  }
  const int64_t u = int64_t{tile} * kStripHeight + unit;
  const int64_t at = row * a.units_stride + u;
  const float h = update_cell(gates, a.c[at]);
  a.h[at] = h;
  if (std::isnan(h))
    a.h_out.scales[row] = NAN;
  store_quantized<F>(a.h_out.data + row * a.h_out.stride, u, h, static_cast<float>(a.h_out_max),
                     a.h_out_max);
  if (a.y.base && u < a.hidden_size)
    store_value(a.y.at(a.rows, a.t, row, a.y_chunk_row + row), a.y.type, u, h);
}

template <Form F, int kGroups>
LFK_KERNEL(kThreads, 1)
step_kernel(LFK_PARAMETERS(Both<StepArguments>) both) {
  const StepArguments &a = both.of[block_index().z];
  const int tile = block_index().y, first = block_index().x * kGroups * 8;
  if (first >= a.active)
    return;
  if constexpr (F == Form::float32)
    form_float_sums<kGroups>(a, tile, first, shared_memory<float>());
  else
    form_sums<F, kGroups>(a, tile, first, shared_memory<int32_t>());
  sync_threads();
  for (int i = thread_index(); i < kStripHeight * kGroups * 8; i += kThreads) {
    const int n = i / kStripHeight;
    if (first + n < a.active)
      finish_unit<F, kGroups>(a, tile, i % kStripHeight, first + n, n);
  }
}

template <Form F, int kGroups> void launch_step(const Both<StepArguments> &both, void *stream) {
  const int active = std::max(both.of[0].active, both.of[1].active);
  if (active == 0)
    return;
  Launch shape;
  shape.threads = kThreads;
  shape.shared_bytes = kSharedBytes<F, kGroups>;
  shape.grid = {static_cast<int>(divide_up(active, kGroups * 8)), both.of[0].hh.num_tiles,
                both.directions};
  launch(step_kernel<F, kGroups>, shape, stream, both);
}

template <Form F> void launch_step(const Both<StepArguments> &both, void *stream) {
  if (std::max(both.of[0].active, both.of[1].active) <= 8)
    launch_step<F, 1>(both, stream);
  else
    launch_step<F, 4>(both, stream);
}

} // namespace

void step(Form form, const Both<StepArguments> &both, void *stream) {
  switch (form) {
  case Form::signed16:
    return launch_step<Form::signed16>(both, stream);
  case Form::float32:
    return launch_step<Form::float32>(both, stream);
  default:
    return launch_step<Form::signed8>(both, stream);
  }
}

} // namespace cuda
} // namespace lstm_fastkernels
