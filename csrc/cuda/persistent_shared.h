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
    const int units = s.tiles * kStripHeight;
    h_bytes = up(s.rows, 8) * h_stride;
    gates_floats = s.rows * gates_stride;
    scales_floats = up(s.rows, 4);
    nans_bytes = s.cluster ? s.blocks * kPersistentRows : 0;
    h = take(2 * h_bytes);
    gates = take(2 * gates_floats * 4);
    scales = take(2 * scales_floats * 4);
    nans = take(2 * nans_bytes);
    sums = take(s.parts * s.tiles * kTileHeight * sums_stride * 4);
    c = take(s.rows * units * 4);
    last_h = take(s.rows * units * 4);
    first_scales = take(s.rows * 4);
    weight_scales = take(s.tiles * kTileHeight * 4);
    own = take(s.rows * units);
    own_nans = take(kPersistentRows);
    failed = take(4);
    full = take(2 * static_cast<int>(sizeof(device::Mbarrier)));
  }

  int h_stride;     // 8 rows apart in 32 bytes meet different banks
  int gates_stride; // floats; the same, for two rows of 16
  int sums_stride;  // int32
  int h_bytes, gates_floats, scales_floats, nans_bytes; // of one of two buffers
  int h, gates, scales, nans, sums, c, last_h, first_scales, weight_scales, own, own_nans, failed,
      full;
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
