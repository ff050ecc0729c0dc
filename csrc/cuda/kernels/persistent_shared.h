// A persistent block's shared memory.
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
  Form form;         // of h
  int rows, columns; // of h
  int tiles;         // of a block
  int blocks;        // that have tiles
  bool cluster;
};

// Where each array begins, in bytes; the host computes the same for its size. What does not depend
// on the call comes first, and all arrays are of whole 16 bytes without rounding: the kernel has no
// registers to keep offsets in.
class SharedLayout {
public:
  LFK_HOST_DEVICE explicit SharedLayout(const SharedSizes &s)
      : h_stride(up(s.columns * activation_bytes(s.form), 128) + 4 * lane_bytes(s.form)),
        gates_stride(s.tiles * kTileHeight + 16), sums_stride(s.tiles * kStripHeight + 1),
        rows(up(s.rows, 4)) {
    const int units = s.tiles * kStripHeight;
    own_nans = take(16);
    failed = take(16);
    full = take(16);
    weight_scales = take(units * 16);
    scales = take(2 * rows * 4);
    first_scales = take(rows * 4);
    own = take(rows * units * activation_bytes(s.form));
    c = take(rows * units * 4);
    last_h = take(rows * units * 4);
    gates = take(2 * rows * gates_stride * 4);
    sums = take(kPersistentWarps * rows * sums_stride * 16);
    h_bytes = s.cluster ? up(s.rows, 8) * h_stride : 0;
    nan_pieces = s.cluster ? s.blocks : 0;
    h = take(2 * h_bytes);
    nans = take(2 * nan_pieces * 16);
  }

  int h_stride;            // 8 rows apart in 32 bytes, or 2 in 64, meet different banks
  int gates_stride;        // floats; the same, for two rows of 16
  int sums_stride;         // pieces of 16 bytes; the same, for 4 rows of 2
  int rows;                // that there is room for
  int h_bytes, nan_pieces; // of one of two buffers
  int own_nans, failed, full, weight_scales, scales, first_scales, own, c, last_h, gates, sums, h,
      nans;
  int bytes = 0;

private:
  LFK_HOST_DEVICE static int up(int a, int b) { return (a + b - 1) / b * b; }
  LFK_HOST_DEVICE int take(int size) {
    const int at = bytes;
    bytes += size;
    return at;
  }
};

struct alignas(16) UnitScales {
  float of_gate[4];
};

// The arrays. Of those that take turns, step k reads number k % 2.
class BlockMemory {
public:
  LFK_DEVICE explicit BlockMemory(const SharedSizes &sizes)
      : layout(sizes), base_(device::shared_memory<uint8_t>()) {}

  const SharedLayout layout;

  // What an exchange fills: h, [rows][h_stride] bytes and in a cluster only; a piece from each
  // block that says which rows have a NaN in them; scales of h, NaN for those rows.
  LFK_DEVICE uint8_t *h(int i) const { return base_ + layout.h + i * layout.h_bytes; }
  LFK_DEVICE device::Words4 *nans(int i) const {
    return at<device::Words4>(layout.nans) + i * layout.nan_pieces;
  }
  LFK_DEVICE float *scales(int i) const { return at<float>(layout.scales) + i * layout.rows; }
  LFK_DEVICE device::Mbarrier *full() const { return at<device::Mbarrier>(layout.full); }

  // What it sends: [rows][units] of the form, and a bit for each row, which keeps it from its first
  // NaN on.
  LFK_DEVICE uint8_t *own() const { return base_ + layout.own; }
  LFK_DEVICE uint32_t *own_nans() const { return at<uint32_t>(layout.own_nans); }

  // Input products, [rows][gates_stride].
  LFK_DEVICE float *gates(int i) const {
    return at<float>(layout.gates) + i * layout.rows * layout.gates_stride;
  }
  // [warp][rows][sums_stride], the four gates of a unit.
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
