// Shapes of the persistent kernel that a test chooses.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "check.h"
#include "driver.h"

namespace lstm_fastkernels {

constexpr int kUnitsOfTile = 16;

inline cuda::PersistentShape grid_of(int64_t hidden, int parts, int blocks) {
  cuda::PersistentShape shape;
  shape.parts = parts;
  shape.blocks = blocks;
  shape.grid = static_cast<int>((hidden + kUnitsOfTile - 1) / kUnitsOfTile);
  return shape;
}
inline cuda::PersistentShape sparse_grid_of(int64_t hidden, int parts, int blocks) {
  cuda::PersistentShape shape = grid_of(hidden, parts, blocks);
  shape.sparse = true;
  return shape;
}
// Of `size` blocks, or as few as there must be.
inline cuda::PersistentShape cluster_of(int64_t hidden, int parts, int tiles, int size = 1) {
  cuda::PersistentShape shape = grid_of(hidden, parts, tiles);
  shape.cluster = true;
  shape.tiles = tiles;
  while (size * tiles < shape.grid)
    size *= 2;
  shape.grid = size;
  return shape;
}

// Of every exchange, for hidden sizes up to 256.
inline std::vector<cuda::PersistentShape> shapes_of(int64_t hidden) {
  return {grid_of(hidden, 8, 1), sparse_grid_of(hidden, 4, 1), cluster_of(hidden, 8, 1),
          cluster_of(hidden, 4, 2)};
}

inline std::string name_of(const cuda::PersistentShape &s) {
  return check::text(s.cluster  ? "cluster"
                     : s.sparse ? "sparse grid"
                                : "grid",
                     " of ", s.grid, " parts ", s.parts, " blocks ", s.blocks);
}

inline cuda::Plan plan_of(const std::vector<cuda::PersistentShape> &layers) {
  static uint32_t failed = 0;
  cuda::Plan plan;
  plan.failed = &failed;
  for (const cuda::PersistentShape &shape : layers)
    plan.layers.push_back({true, shape, ""});
  return plan;
}

} // namespace lstm_fastkernels
