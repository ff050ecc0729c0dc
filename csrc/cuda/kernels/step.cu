// One time step: recurrent products, gates, c and h, in one launch.
//
// A block has a tile and 8 or 32 rows. Once their sums are there, each thread finishes units of
// rows.
#include <algorithm>

#include "common/rounding.h"
#include "cuda/kernels/device.h"
#include "cuda/kernels/plain_kernels.h"
#include "cuda/kernels/tile_sums.h"

namespace lstm_fastkernels {
namespace cuda {
namespace {

using namespace device;

template <Arithmetic F, int kGroups>
LFK_DEVICE void finish_unit(const StepArguments &a, const TileSums<F, kGroups> &sums, int tile,
                            int unit, int first, int n) {
  const int64_t row = first + n;
  const float *in = a.input_gates + row * a.hh.padded_rows();
  float gates[kGates];
  for (int g = 0; g < kGates; ++g) {
    const int64_t r = int64_t{tile} * kTileHeight + g * kBandHeight + unit;
    gates[g] = sums.scaled(a.hh, r, a.h_in, first, n, in[r]);
  }
  const int64_t at = row * a.units_stride + int64_t{tile} * kBandHeight + unit;
  a.h[at] = update_cell(gates, a.c[at]);
}

template <Arithmetic F, int kGroups>
LFK_KERNEL(kStepThreads, 1)
step_kernel(LFK_PARAMETERS(Directions<StepArguments>) all) {
  const StepArguments &a = all.of[block_index().z];
  const int tile = block_index().y, first = block_index().x * kGroups * 8;
  if (first >= a.active)
    return;
  const TileSums<F, kGroups> sums(shared_memory<uint8_t>());
  sums.arithmetic(a.hh, tile, a.h_in, first, a.active);
  sync_threads();
  for (int i = thread_index(); i < kBandHeight * kGroups * 8; i += kStepThreads) {
    const int n = i / kBandHeight;
    if (first + n < a.active)
      finish_unit(a, sums, tile, i % kBandHeight, first, n);
  }
}

template <Arithmetic F, int kGroups>
void launch_step(const Directions<StepArguments> &all, void *stream) {
  const int64_t active = all.most(&StepArguments::active);
  if (active == 0)
    return;
  Launch shape;
  shape.threads = kStepThreads;
  shape.shared_bytes = TileSums<F, kGroups>::kBytes;
  shape.grid = {static_cast<int>(divide_up(active, kGroups * 8)), all.of[0].hh.num_tiles,
                all.count};
  launch(step_kernel<F, kGroups>, shape, stream, all);
}

} // namespace

void step(const Directions<StepArguments> &all, void *stream) {
  const bool few = all.most(&StepArguments::active) <= 8;
  with_arithmetic(all.of[0].arithmetic(), [&](auto f) {
    if (few)
      launch_step<f, 1>(all, stream);
    else
      launch_step<f, 4>(all, stream);
  });
}

} // namespace cuda
} // namespace lstm_fastkernels
