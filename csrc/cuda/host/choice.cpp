#include "cuda/host/choice.h"

#include <algorithm>

#include "common/rounding.h"

namespace lstm_fastkernels {
namespace cuda {
namespace {

constexpr int kColumnsOfWarps = kPersistentWarps * kFragmentColumns; // one fragment in each warp
constexpr int64_t kFewestSteps = 2;

// In a cluster h arrives sooner, but blocks with several tiles multiply more than those of the
// grid: such clusters are preferred only up to this many rows. An estimate: it has not been
// measured on a GPU yet (benchmarks/cuda/steps.cu does that).
constexpr int64_t kRowsForTilesInCluster = 8;

// A power of two; at least 2, since store_async needs another block.
int cluster_size(int64_t blocks) {
  int size = 2;
  while (size < blocks)
    size *= 2;
  return size;
}

int fewest_ranges(int64_t batch) { return static_cast<int>(divide_up(batch, kPersistentRows)); }
int most_ranges(const LstmShape &shape) {
  return kMostSideBySide / static_cast<int>(shape.num_directions);
}

// Why a layer, of which these are the directions, cannot be persistent on any device; empty if it
// may be.
std::string obstacle(const LstmShape &shape, const PackedLayer *layers, int64_t batch,
                     int64_t time_steps) {
  for (int64_t direction = 0; direction < shape.num_directions; ++direction)
    if (layers[direction].hh.is_low_rank())
      return "weight_hh is low-rank";
  const Arithmetic arithmetic = layers[0].hh.arithmetic();
  if (arithmetic == Arithmetic::float32 || arithmetic == Arithmetic::int4)
    return "weight_hh is " + std::string(precision_name(layers[0].hh.precision));
  if (layers[0].hh.arithmetic() != layers[shape.num_directions - 1].hh.arithmetic())
    return "weight_hh has another precision in each direction";
  if (shape.proj_size)
    return "there is a projection";
  if (time_steps < kFewestSteps)
    return "there is one time step";
  const int64_t most = most_ranges(shape) * kPersistentRows;
  if (batch > most)
    return "the batch is larger than " + std::to_string(most);
  return "";
}

// Adds the shapes with `ranges` ranges of `rows` rows.
void add_shapes(const LstmShape &shape, const PackedLayer *layers, int ranges, int rows,
                const device::Limits &limits, std::vector<PersistentShape> &shapes) {
  const DeviceMatrix &hh = layers[0].hh;
  const int fragments = static_cast<int>(divide_up(hh.num_columns, kColumnsOfWarps));

  PersistentShape cluster;
  cluster.arithmetic = hh.arithmetic();
  cluster.cluster = true;
  cluster.tiles = cluster.fragments = fragments;
  cluster.grid = cluster_size(divide_up(hh.num_tiles, cluster.tiles));
  cluster.ranges = ranges;
  cluster.rows = rows;

  PersistentShape grid = cluster;
  grid.cluster = false;
  grid.tiles = 1;
  grid.grid = hh.num_tiles;

  const auto first = shapes.size();
  const auto add_if = [&](bool exists, const PersistentShape &s) {
    if (exists && shared_bytes(s, hh) <= limits.shared_bytes)
      shapes.push_back(s);
  };
  add_if(limits.clusters && cluster.grid <= kLargestCluster &&
             fragments <= most_cluster_tiles(cluster.arithmetic),
         cluster);
  add_if(fragments <= kMostFragments &&
             grid.grid * shape.num_directions * ranges <= limits.multiprocessors,
         grid);
  if (cluster.tiles > 1 && rows > kRowsForTilesInCluster)
    std::reverse(shapes.begin() + static_cast<std::ptrdiff_t>(first), shapes.end());
}

} // namespace

int rows_of_range(int64_t batch, int ranges) {
  const int64_t rows = ranges == 1 ? batch : round_up(divide_up(batch, ranges), 8);
  return (ranges - 1) * rows < batch ? static_cast<int>(rows) : 0;
}

std::vector<PersistentShape> possible_shapes(const LstmShape &shape, const PackedLayer *layers,
                                             int64_t batch, const device::Limits &limits) {
  if (!obstacle(shape, layers, batch, kFewestSteps).empty())
    return {};
  std::vector<PersistentShape> shapes;
  for (int ranges = fewest_ranges(batch); ranges <= most_ranges(shape); ++ranges)
    if (const int rows = rows_of_range(batch, ranges))
      add_shapes(shape, layers, ranges, rows, limits, shapes);
  return shapes;
}

Choice choose(const LstmShape &shape, const PackedLayer *layers, int64_t batch, int64_t time_steps,
              const device::Limits &limits,
              const std::function<bool(const PersistentShape &)> &fits) {
  Choice choice;
  choice.reason = obstacle(shape, layers, batch, time_steps);
  if (!choice.reason.empty())
    return choice;
  choice.reason = "the hidden size or the batch is too large for this device";
  const auto shapes = possible_shapes(shape, layers, batch, limits);
  const auto found = std::find_if(shapes.begin(), shapes.end(), fits);
  if (found != shapes.end()) {
    choice.persistent = true;
    choice.shape = *found;
    choice.reason = describe(*found);
  }
  return choice;
}

std::string describe(const PersistentShape &shape) {
  const std::string blocks = std::to_string(shape.grid) + " blocks";
  return (shape.cluster ? "in a cluster of " + blocks : "on " + blocks + " of the grid") +
         (shape.ranges > 1 ? ", " + std::to_string(shape.ranges) + " ranges of " +
                                 std::to_string(shape.rows) + " rows"
                           : "");
}

bool may_be_persistent(const PackedStack &stack, int64_t batch, int64_t time_steps) {
  for (size_t i = 0; i < stack.layers.size(); i += static_cast<size_t>(stack.shape.num_directions))
    if (obstacle(stack.shape, &stack.layers[i], batch, time_steps).empty())
      return true;
  return false;
}

int most_side_by_side(const PackedStack &stack, int64_t batch, int64_t time_steps) {
  if (stack.shape.num_directions == 2 || !may_be_persistent(stack, batch, time_steps))
    return 1;
  return static_cast<int>(
      std::min(stack.shape.num_layers, int64_t{kMostSideBySide} / fewest_ranges(batch)));
}

int at_once(const PersistentShape &shape, const PackedLayer &layer, int device) {
  const int ranges = most_at_once(shape, layer.hh, device) / (shape.cluster ? 1 : shape.grid);
  return std::min(ranges, kMostSideBySide) / shape.ranges;
}

bool fits(const PersistentShape &shape, const PackedLayer &layer, int directions, int device) {
  // Blocks wait only for those of their own range, so clusters may also run one after the other.
  return shape.cluster ? most_at_once(shape, layer.hh, device) > 0
                       : at_once(shape, layer, device) >= directions;
}

int64_t most_packets(const DeviceMatrix &hh, int64_t batch) {
  int64_t most = 0;
  for (int ranges = fewest_ranges(batch); ranges <= kMostSideBySide; ++ranges)
    most = std::max(most, ranges * range_packets(hh, rows_of_range(batch, ranges)));
  return most;
}

} // namespace cuda
} // namespace lstm_fastkernels
