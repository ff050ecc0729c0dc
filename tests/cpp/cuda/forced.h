// Shapes of the persistent kernel that a test chooses.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "check.h"
#include "cuda/host/driver.h"
#include "stack.h"

namespace lstm_fastkernels {

constexpr int kUnitsOfTile = 16;

inline cuda::PersistentShape grid_of(int64_t hidden, int fragments) {
  cuda::PersistentShape shape;
  shape.fragments = fragments;
  shape.grid = static_cast<int>((hidden + kUnitsOfTile - 1) / kUnitsOfTile);
  return shape;
}
// Of `size` blocks, or as few as there must be.
inline cuda::PersistentShape cluster_of(int64_t hidden, int tiles, int size = 2) {
  cuda::PersistentShape shape = grid_of(hidden, tiles);
  shape.cluster = true;
  shape.tiles = tiles;
  while (size * tiles < shape.grid)
    size *= 2;
  shape.grid = size;
  return shape;
}

// For a hidden size up to 256: with as few fragments a warp as it needs, and with more.
inline std::vector<cuda::PersistentShape> shapes_of(int64_t hidden) {
  return {cluster_of(hidden, 1), cluster_of(hidden, 2), grid_of(hidden, 1), grid_of(hidden, 2)};
}

// The same with the rows of a batch, in as few ranges as there must be, or in more.
inline cuda::PersistentShape of_rows(cuda::PersistentShape shape, int64_t batch, int ranges = 1) {
  shape.ranges = std::max(ranges, static_cast<int>((batch + 63) / 64));
  shape.rows = cuda::rows_of_range(batch, shape.ranges);
  return shape;
}

inline cuda::PersistentShape of_arithmetic(cuda::PersistentShape shape, Arithmetic arithmetic) {
  shape.arithmetic = arithmetic;
  return shape;
}

inline std::string name_of(const cuda::PersistentShape &s) {
  return check::text(s.arithmetic == Arithmetic::signed16 ? "int16 " : "",
                     s.cluster ? "cluster" : "grid", " of ", s.grid, " fragments ", s.fragments,
                     " ranges ", s.ranges);
}

inline cuda::Plan plan_of(const std::vector<cuda::PersistentShape> &layers) {
  static uint32_t failed = 0;
  cuda::Plan plan;
  plan.failed = &failed;
  for (const cuda::PersistentShape &shape : layers)
    plan.layers.push_back({true, shape, ""});
  return plan;
}

// A stack of layers of one shape, of which so many may run side by side.
inline cuda::Plan plan_of(const cuda::PersistentShape &shape, int64_t layers,
                          int side_by_side = 1) {
  cuda::Plan plan = plan_of(std::vector<cuda::PersistentShape>(static_cast<size_t>(layers), shape));
  for (cuda::Choice &choice : plan.layers)
    choice.side_by_side = side_by_side;
  return plan;
}

} // namespace lstm_fastkernels
