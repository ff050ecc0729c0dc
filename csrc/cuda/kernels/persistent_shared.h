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

struct SharedSizes {
  Arithmetic arithmetic; // of h
  int rows, columns;     // of h
  int tiles;             // of a block
  int blocks;            // that have tiles
  bool cluster;
};

// Byte offsets of the arrays; the host computes them, too, for the size. Arrays of constant size
// come first, and all are multiples of 16 bytes without rounding, so that the kernel needs no
// registers for offsets.
class SharedLayout {
public:
  LFK_HOST_DEVICE explicit SharedLayout(const SharedSizes &s)
      : h_stride(up(s.columns * activation_bytes(s.arithmetic), 128) +
                 4 * lane_bytes(s.arithmetic)),
        gates_stride(s.tiles * kTileHeight + 16), sums_stride(s.tiles * kBandHeight + 1),
        rows(up(s.rows, 4)) {
    const int units = s.tiles * kBandHeight;
    own_nans = place(16);
    failed = place(16);
    full = place(16);
    weight_scales = place(units * 16);
    scales = place(2 * rows * 4);
    first_scales = place(rows * 4);
    own = place(rows * units * activation_bytes(s.arithmetic));
    c = place(rows * units * 4);
    last_h = place(rows * units * 4);
    gates = place(2 * rows * gates_stride * 4);
    sums = place(kPersistentWarps * rows * sums_stride * 16);
    h_bytes = s.cluster ? up(s.rows, 8) * h_stride : 0;
    nan_pieces = s.cluster ? s.blocks : 0;
    h = place(2 * h_bytes);
    nans = place(2 * nan_pieces * 16);
  }

  // Strides avoid bank conflicts between rows that are accessed together.
  int h_stride;            // bytes: 8 rows of 32 bytes, or 2 of 64
  int gates_stride;        // floats: 2 rows of 16
  int sums_stride;         // pieces of 16 bytes: 4 rows of 2
  int rows;                // capacity
  int h_bytes, nan_pieces; // of each of the two buffers
  int own_nans, failed, full, weight_scales, scales, first_scales, own, c, last_h, gates, sums, h,
      nans;
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
  float of_gate[4];
};

// The arrays. Of double buffers, step k reads number k % 2.
class BlockMemory {
public:
  LFK_DEVICE explicit BlockMemory(const SharedSizes &sizes)
      : layout(sizes), base_(device::shared_memory<uint8_t>()) {}

  const SharedLayout layout;

  // Filled by the exchange: h, [rows][h_stride] bytes, in a cluster only; a piece from each block
  // with a bit for each row that has a NaN; scales of h, NaN for those rows.
  LFK_DEVICE uint8_t *h(int i) const { return base_ + layout.h + i * layout.h_bytes; }
  LFK_DEVICE device::Words4 *nans(int i) const {
    return at<device::Words4>(layout.nans) + i * layout.nan_pieces;
  }
  LFK_DEVICE float *scales(int i) const { return at<float>(layout.scales) + i * layout.rows; }
  LFK_DEVICE device::Mbarrier *full() const { return at<device::Mbarrier>(layout.full); }

  // Sent by the exchange: this block's h, [rows][units], and a bit for each row, set
  // from its first NaN on.
  LFK_DEVICE uint8_t *own() const { return base_ + layout.own; }
  LFK_DEVICE uint32_t *own_nans() const { return at<uint32_t>(layout.own_nans); }

  // Input products, [rows][gates_stride].
  LFK_DEVICE float *gates(int i) const {
    return at<float>(layout.gates) + i * layout.rows * layout.gates_stride;
  }
  // [warp][rows][sums_stride], each the four gates of a unit.
  LFK_DEVICE device::Words4 *sums() const { return at<device::Words4>(layout.sums); }
  LFK_DEVICE float *c() const { return at<float>(layout.c); } // [rows][units], as is last_h
  LFK_DEVICE float *last_h() const { return at<float>(layout.last_h); }
  LFK_DEVICE float *first_scales() const { return at<float>(layout.first_scales); } // [rows]
  LFK_DEVICE UnitScales *weight_scales() const { return at<UnitScales>(layout.weight_scales); }
  LFK_DEVICE int *failed() const { return at<int>(layout.failed); }

private:
  template <class T> LFK_DEVICE T *at(int offset) const {
    return reinterpret_cast<T *>(base_ + offset);
  }

  uint8_t *const base_;
};

} // namespace cuda
} // namespace lstm_fastkernels
