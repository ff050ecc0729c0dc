#include "persistent.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <tuple>

#include "persistent_instances.h"
#include "persistent_shared.h"

namespace lstm_fastkernels {
namespace cuda {
namespace {

constexpr int kColumnsOfBlocks = kPersistentWarps * kFragmentColumns; // one block in each warp
constexpr int64_t kFewestSteps = 2;

// From so many rows on, sums of 8 parts take longer to add up than those of 4.
constexpr int64_t kRowsForFourParts = 9;
// Up to so many rows, blocks of a cluster are faster than as many of the grid as there are tiles:
// h arrives sooner, but a block has more to multiply. Chosen from the design's estimates; no GPU
// has decided it yet.
constexpr int64_t kRowsForCluster = 8;

SharedLayout layout_of(const PersistentShape &shape, const Matrix &hh, int64_t rows) {
  const int blocks = static_cast<int>(divide_up(hh.num_tiles, shape.tiles));
  return SharedLayout(
      {static_cast<int>(rows), hh.num_columns, shape.tiles, shape.parts, blocks, shape.cluster});
}

PersistentKernel instance(const PersistentShape &shape) {
  return shape.cluster  ? cluster_instance(shape)
         : shape.sparse ? sparse_grid_instance(shape)
                        : grid_instance(shape);
}

device::Launch launch_of(const PersistentShape &shape, const Matrix &hh, int64_t rows,
                         int directions) {
  device::Launch launch;
  launch.grid = {shape.grid, 1, directions};
  launch.threads = kPersistentThreads;
  launch.shared_bytes = static_cast<size_t>(layout_of(shape, hh, rows).bytes);
  if (shape.cluster)
    launch.cluster = shape.grid;
  else
    launch.cooperative = true;
  return launch;
}

bool fits_shared(const PersistentShape &shape, const Matrix &hh, int64_t rows,
                 const device::Limits &limits) {
  return static_cast<size_t>(layout_of(shape, hh, rows).bytes) <= limits.shared_bytes;
}

int power_of_two(int64_t at_least) {
  int power = 1;
  while (power < at_least)
    power *= 2;
  return power;
}

Choice plain(const std::string &reason) {
  Choice choice;
  choice.reason = reason;
  return choice;
}

} // namespace

Choice choose(const LstmShape &shape, const PackedLayer *layers, int64_t rows, int64_t time_steps,
              const device::Limits &limits) {
  if (shape.activation_bits != 8)
    return plain("activations are not int8");
  if (shape.proj_size)
    return plain("there is a projection");
  if (time_steps < kFewestSteps)
    return plain("there is one time step");
  if (rows > kPersistentRows)
    return plain("the batch is larger than " + std::to_string(kPersistentRows));

  const Matrix &hh = layers[0].hh;
  const int directions = static_cast<int>(shape.num_directions);
  const int64_t dense = divide_up(hh.num_columns, kColumnsOfBlocks);
  Choice cluster;
  cluster.shape.cluster = true;
  const int parts = rows < kRowsForFourParts ? 8 : 4;
  cluster.shape.parts = dense <= kLargestTilesOfEightParts ? parts : 4;
  cluster.shape.tiles = cluster.shape.blocks = static_cast<int>(dense);
  cluster.shape.grid = power_of_two(divide_up(hh.num_tiles, dense));
  cluster.persistent = limits.clusters && dense <= kLargestClusterTiles &&
                       cluster.shape.grid <= kLargestCluster &&
                       fits_shared(cluster.shape, hh, rows, limits);
  cluster.reason = "in a cluster of " + std::to_string(cluster.shape.grid) + " blocks";

  int longest = 0;
  for (int d = 0; d < directions; ++d)
    longest = std::max(longest, layers[d].hh.longest);
  const int64_t sparse = std::max<int64_t>(1, divide_up(longest, kPersistentWarps));
  Choice grid;
  grid.shape.parts = parts;
  grid.shape.sparse = 2 * sparse <= dense && sparse <= kLargestSparseBlocks;
  grid.shape.blocks = static_cast<int>(grid.shape.sparse ? sparse : dense);
  grid.shape.grid = hh.num_tiles;
  grid.persistent = grid.shape.blocks <= kLargestBlocks &&
                    int64_t{hh.num_tiles} * directions <= limits.multiprocessors &&
                    fits_shared(grid.shape, hh, rows, limits);
  grid.reason = "on " + std::to_string(hh.num_tiles) + " blocks of the grid" +
                (grid.shape.sparse ? ", zeros skipped" : "");

  if (cluster.persistent && (rows <= kRowsForCluster || !grid.persistent))
    return cluster;
  if (grid.persistent)
    return grid;
  return plain("the hidden size or the batch is too large for this device");
}

bool fits(const PersistentShape &shape, const PackedLayer &layer, int directions, int64_t rows,
          int device) {
  const PersistentKernel kernel = instance(shape);
  const device::Launch launch = launch_of(shape, layer.hh, rows, directions);
  static std::mutex mutex;
  static std::map<std::tuple<int, PersistentKernel, size_t, int>, int> known;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto [found, is_new] =
      known.try_emplace({device, kernel, launch.shared_bytes, launch.cluster}, 0);
  if (is_new)
    found->second = device::most_at_once(kernel, launch, device);
  return (shape.cluster ? 1 : shape.grid) * directions <= found->second;
}

int64_t most_packets(const Matrix &hh, int64_t rows) {
  if (rows > kPersistentRows)
    return 0;
  return int64_t{2} * hh.num_tiles * GridExchange::packets_for(static_cast<int>(rows));
}

void run_persistent(const PersistentShape &shape, const Both<PersistentArguments> &both,
                    void *stream) {
  const PersistentArguments &a = both.of[0];
  device::launch(instance(shape), launch_of(shape, a.hh, a.rows.batch, both.directions), stream,
                 both);
}

} // namespace cuda
} // namespace lstm_fastkernels
