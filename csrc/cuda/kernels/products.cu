// A matrix times many rows: input products of a chunk of time steps, and projections.
//
// Integers: a block multiplies 8 bands, one for each warp, with 64 rows. The rows'
// activations go through shared memory in double-buffered chunks of 256 bytes. Weights are read
// from L2, 16 bytes a lane.
//
// float32: a block multiplies one band with 64 rows; a thread computes four sums of a weight row.
#include <algorithm>
#include <cmath>

#include "common/rounding.h"
#include "cuda/kernels/device.h"
#include "cuda/kernels/fragments.h"
#include "cuda/kernels/plain_kernels.h"

namespace lstm_fastkernels {
namespace cuda {
namespace {

using namespace device;

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kRowsOfBlock = 64; // of activations
constexpr int kGroups = kRowsOfBlock / 8;
constexpr int kChunkBytes = 256;

// Row stride in shared memory: 8 rows of 32 bytes, or 2 of 64, do not conflict in banks.
template <Arithmetic F>
constexpr int kSharedStride = kChunkBytes + (activation_bytes(F) == 1 ? 32 : 64);
template <Arithmetic F> constexpr int kStageBytes = kRowsOfBlock * kSharedStride<F>;

template <Arithmetic F>
LFK_DEVICE void store_product(const ProductsArguments &a, int64_t row, int64_t weight_row,
                              float sum) {
  a.out[row * a.matrix.padded_rows() + weight_row] =
      std::fma(sum, a.x.scales[row] * row_scale<F>(a.matrix, weight_row),
               a.bias ? a.bias[weight_row] : -0.0f); // adding -0 changes nothing
}

// Starts copying a chunk of this block's rows. Rows past the end repeat the last one.
template <Arithmetic F>
LFK_DEVICE void copy_chunk(const ProductsArguments &a, int64_t first, int64_t chunk,
                           uint8_t *stage) {
  constexpr int kPieces = kChunkBytes / 16;
  for (int i = thread_index(); i < kRowsOfBlock * kPieces; i += kThreads) {
    const int64_t row = first + i / kPieces < a.count ? first + i / kPieces : a.count - 1;
    const int64_t byte = chunk * kChunkBytes + i % kPieces * 16;
    if (byte < a.x.stride)
      copy_async_16(stage + i / kPieces * kSharedStride<F> + i % kPieces * 16,
                    a.x.data + row * a.x.stride + byte);
  }
  commit_copies();
}

template <Arithmetic F>
LFK_KERNEL(kThreads, 2)
products_kernel(LFK_PARAMETERS(SideBySide<ProductsArguments>) all) {
  constexpr int kFragmentsAChunk = kChunkBytes / fragment_row_bytes(F);
  const ProductsArguments &a = all.of[block_index().z];
  const DeviceMatrix &m = a.matrix;
  const int64_t first = int64_t{block_index().x} * kRowsOfBlock;
  if (first >= a.count)
    return;
  const int band = block_index().y * kWarps + warp();
  const bool exists = band < m.num_tiles * kBandsPerTile;
  uint32_t position = exists ? m.starts[band] : 0;
  const uint32_t end = exists ? m.starts[band + 1] : 0;
  const int lane_row = lane() / 4, lane_column = lane() % 4;

  uint8_t *const stages = shared_memory<uint8_t>();
  const int64_t chunks = (a.x.stride + kChunkBytes - 1) / kChunkBytes;
  Sums<F> sums[kGroups];
  for (int group = 0; exists && group < kGroups; ++group)
    start_sums(sums[group], m, band, [&](int i) {
      const int64_t row = first + group * 8 + activation_row_of(i);
      return a.x.zero_points[row < a.count ? row : a.count - 1];
    });
  copy_chunk<F>(a, first, 0, stages);
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    if (chunk + 1 < chunks) {
      copy_chunk<F>(a, first, chunk + 1, stages + (chunk + 1) % 2 * kStageBytes<F>);
      wait_copies<1>();
    } else {
      wait_copies<0>();
    }
    sync_threads();
    const uint8_t *stage = stages + chunk % 2 * kStageBytes<F>;
    const int64_t chunk_end = (chunk + 1) * kFragmentsAChunk;
    while (position < end && m.columns[position] < chunk_end) {
      const Words4 weights = load_fragment(m, position);
      const int column = m.columns[position++];
      const uint8_t *q = stage + lane_row * kSharedStride<F> +
                         column % kFragmentsAChunk * fragment_row_bytes(F) +
                         lane_column * lane_bytes(F);
      for (int group = 0; group < kGroups; ++group) {
        sums[group].add(weights.words, load_columns<F>(q + group * 8 * kSharedStride<F>));
        end_fragment(sums[group], m, band, column);
      }
    }
    sync_threads();
  }
  if (!exists)
    return;
  for (int group = 0; group < kGroups; ++group)
    for (int i = 0; i < 4; ++i) {
      const int64_t row = first + group * 8 + activation_row_of(i);
      const int64_t weight_row = int64_t{band} * kBandHeight + weight_row_of(i);
      if (row < a.count)
        store_product<F>(a, row, weight_row,
                         static_cast<float>(sums[group][i] -
                                            zero_offset<F>(m, weight_row, a.x.zero_points[row])));
    }
}

LFK_KERNEL(kThreads, 2) float_products_kernel(LFK_PARAMETERS(SideBySide<ProductsArguments>) all) {
  const ProductsArguments &a = all.of[block_index().z];
  const int band = block_index().y;
  if (band >= a.matrix.num_tiles * kBandsPerTile)
    return;
  const int weight_row = thread_index() % kBandHeight;
  for (int i = thread_index() / kBandHeight; i < kRowsOfBlock; i += kThreads / kBandHeight) {
    const int64_t row = int64_t{block_index().x} * kRowsOfBlock + i;
    if (row < a.count)
      store_product<Arithmetic::float32>(
          a, row, int64_t{band} * kBandHeight + weight_row,
          ordered_sum(a.matrix, band, weight_row, a.x.data + row * a.x.stride));
  }
}

} // namespace

void products(const SideBySide<ProductsArguments> &all, void *stream) {
  const int64_t count = all.most(&ProductsArguments::count);
  if (count == 0)
    return;
  int bands = 0;
  for (int i = 0; i < all.count; ++i)
    bands = std::max(bands, all.of[i].matrix.num_tiles * kBandsPerTile);
  Launch shape;
  shape.threads = kThreads;
  shape.grid = {static_cast<int>(divide_up(count, kRowsOfBlock)),
                static_cast<int>(divide_up(bands, kWarps)), all.count};
  const Arithmetic arithmetic = all.of[0].arithmetic();
  if (arithmetic == Arithmetic::float32) {
    shape.grid.y = bands;
    return launch(float_products_kernel, shape, stream, all);
  }
  with_arithmetic(arithmetic, [&](auto f) {
    if constexpr (f != Arithmetic::float32) {
      shape.shared_bytes = 2 * kStageBytes<f>;
      launch(products_kernel<f>, shape, stream, all);
    }
  });
}

} // namespace cuda
} // namespace lstm_fastkernels
