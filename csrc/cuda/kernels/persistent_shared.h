// Shared memory of a block of the persistent kernel.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/host_device.h"
#include "cuda/kernels/device.h"
#include "cuda/kernels/fragments.h"
#include "cuda/kernels/persistent.h"

namespace lstm_fastkernels {
namespace cuda {

constexpr int kRowsAtOnce = 16; // multiplied, then finished: a unit of a tile for each thread

struct SharedSizes {
  int rows, columns; // of h
  int tiles;         // of a block
  int blocks;        // that have tiles
  bool cluster;
};

// Byte offsets of the arrays; the host computes them, too, for the size. Arrays of constant size
// come first, and all are multiples of 16 bytes without rounding, so that the kernel needs no
// registers for offsets.
class SharedLayout {
public:
  LFK_HOST_DEVICE explicit SharedLayout(const SharedSizes &s)
      : h_stride(up(s.columns * int{sizeof(int16_t)}, 128) + 64),
        gates_stride(s.tiles * kTileHeight + 16), sums_stride(s.tiles * kBandHeight + 1),
        rows(up(s.rows, 4)), sum_rows(rows < kRowsAtOnce ? rows : kRowsAtOnce),
        h_bytes(rows * h_stride), nan_pieces(s.cluster ? s.blocks : 0) {
    const int units = s.tiles * kBandHeight, copies = s.cluster ? 2 : 1;
    own_nans = place(16);
    row_nans = place(16);
    failed = place(16);
    full = place(16);
    weight_scales = place(units * 16);
    weight_sums = place(units * 16);
    row_units = place(rows * 4);
    row_quantizers = place(rows * 16);
    own = place(rows * units * int{sizeof(int16_t)});
    c = place(rows * units * 4);
    last_h = place(rows * units * 4);
    gates = place(2 * rows * gates_stride * 4);
    sums = place(kPersistentWarps * sum_rows * sums_stride * 16);
    h = place(copies * h_bytes);
    nans = place(2 * nan_pieces * 16);
  }

  // Strides avoid bank conflicts between rows that are accessed together.
  int h_stride;            // bytes: 2 rows of 64
  int gates_stride;        // floats: 2 rows of 16
  int sums_stride;         // pieces of 16 bytes: 4 rows of 2
  int rows, sum_rows;      // capacity
  int h_bytes, nan_pieces; // of a buffer
  int own_nans, row_nans, failed, full, weight_scales, weight_sums, row_units, row_quantizers, own,
      c, last_h, gates, sums, h, nans;
  int bytes = 0;

private:
  LFK_HOST_DEVICE static int up(int a, int b) { return (a + b - 1) / b * b; }
  LFK_HOST_DEVICE int place(int size) {
    const int at = bytes;
    bytes += size;
    return at;
  }
};

struct alignas(16) UnitScales {
  float of_gate[kGates];
};
struct alignas(16) UnitSums {
  int32_t of_gate[kGates];
};

// From the 16 bits of a row of h to 8: q = clamp(rint(h inverse) + zero_point, 0, 255).
struct alignas(16) SharedQuantizer {
  float scale; // of the row as it is multiplied, 8 bits or 16
  float inverse;
  int32_t zero_point;
};

// The arrays. Of double buffers, step k reads number k % 2.
class BlockMemory {
public:
  LFK_DEVICE explicit BlockMemory(const SharedSizes &sizes)
      : layout(sizes), cluster_(sizes.cluster), base_(device::shared_memory<uint8_t>()) {}

  const SharedLayout layout;

  // Filled by the exchange: h in 16 bits, [rows][columns], in a cluster two buffers of it, since
  // others send while this block reads; a bit for each row, set from its first NaN on. In a cluster
  // these come as a piece from each block.
  LFK_DEVICE uint8_t *h_row(int step, int row) const {
    return base_ + layout.h + (cluster_ ? step % 2 * layout.h_bytes : 0) + row * layout.h_stride;
  }
  LFK_DEVICE uint32_t *row_nans() const { return at<uint32_t>(layout.row_nans); }
  LFK_DEVICE void add_nans(const device::Words4 &bits) const {
    for (int i = 0; i < 2; ++i)
      if (bits.words[i])
        device::atomic_or(&row_nans()[i], bits.words[i]);
  }
  LFK_DEVICE device::Words4 *nan_pieces(int i) const {
    return at<device::Words4>(layout.nans) + i * layout.nan_pieces;
  }
  LFK_DEVICE device::Mbarrier *full() const { return at<device::Mbarrier>(layout.full); }

  // Sent by the exchange: this block's h in 16 bits, [rows][units], and its NaN bits.
  LFK_DEVICE int16_t *own() const { return at<int16_t>(layout.own); }
  LFK_DEVICE uint32_t *own_nans() const { return at<uint32_t>(layout.own_nans); }

  // [rows]: the unit of h in 16 bits when the kernel began, and how a step takes the row.
  LFK_DEVICE float *row_units() const { return at<float>(layout.row_units); }
  LFK_DEVICE SharedQuantizer *row_quantizers() const {
    return at<SharedQuantizer>(layout.row_quantizers);
  }

  // Input products, [rows][gates_stride].
  LFK_DEVICE float *gates(int i) const {
    return at<float>(layout.gates) + i * layout.rows * layout.gates_stride;
  }
  // [warp][sum_rows][sums_stride], each the four gates of a unit.
  LFK_DEVICE device::Words4 *sums() const { return at<device::Words4>(layout.sums); }
  LFK_DEVICE float *c() const { return at<float>(layout.c); } // [rows][units], as is last_h
  LFK_DEVICE float *last_h() const { return at<float>(layout.last_h); }
  // Of the weights of each unit; sums where activations have zero points.
  LFK_DEVICE UnitScales *weight_scales() const { return at<UnitScales>(layout.weight_scales); }
  LFK_DEVICE UnitSums *weight_sums() const { return at<UnitSums>(layout.weight_sums); }
  LFK_DEVICE int *failed() const { return at<int>(layout.failed); }

private:
  template <class T> LFK_DEVICE T *at(int offset) const {
    return reinterpret_cast<T *>(base_ + offset);
  }

  const bool cluster_;
  uint8_t *const base_;
};

} // namespace cuda
} // namespace lstm_fastkernels
