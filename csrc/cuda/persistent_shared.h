// A persistent block's shared memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "exchange.h"
#include "host_device.h"

namespace lstm_fastkernels {
namespace cuda {

struct SharedSizes {
  int rows, columns; // of h
  int tiles, parts;  // of a block
  int blocks;        // of the grid
  bool cluster;
};

// Where each array begins, in bytes; the host computes the same for its size.
class SharedLayout {
public:
  LFK_HOST_DEVICE explicit SharedLayout(const SharedSizes &s)
      : h_stride(up(s.columns, 128) + 32), gates_stride(s.tiles * kTileHeight + 16),
        sums_stride(s.rows | 1) {
    const int rows_of_groups = up(s.rows, 8), units = s.tiles * kStripHeight;
    for (int i = 0; i < 2; ++i) {
      h[i] = take(rows_of_groups * h_stride);
      gates[i] = take(s.rows * gates_stride * 4);
      scales[i] = take(s.rows * 4);
    }
    sums = take(s.parts * s.tiles * kTileHeight * sums_stride * 4);
    c = take(s.rows * units * 4);
    last_h = take(s.rows * units * 4);
    first_scales = take(s.rows * 4);
    weight_scales = take(s.tiles * kTileHeight * 4);
    own = take(s.rows * units);
    own_nans = take(kPersistentRows);
    failed = take(4);
    for (int i = 0; i < 2; ++i)
      nans[i] = take(s.cluster ? s.blocks * kPersistentRows : 0);
    full = take(2 * static_cast<int>(sizeof(device::Mbarrier)));
  }

  int h_stride;     // 8 rows apart in 32 bytes meet different banks
  int gates_stride; // floats; the same, for two rows of 16
  int sums_stride;  // int32
  int h[2], gates[2], scales[2], sums, c, last_h, first_scales, weight_scales, own, own_nans,
      failed, nans[2], full;
  int bytes = 0;

private:
  LFK_HOST_DEVICE static int up(int a, int b) { return (a + b - 1) / b * b; }
  LFK_HOST_DEVICE int take(int size) {
    const int at = bytes;
    bytes += up(size, 16);
    return at;
  }
};

} // namespace cuda
} // namespace lstm_fastkernels
