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
// Up to so many rows, a cluster is faster than as many blocks of the grid as there are tiles: h
// arrives sooner, but a block has more to multiply. From the design's estimates: no GPU has decided
// either yet (benchmarks/cuda/steps.cu asks one).
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

int power_of_two(int64_t at_least) {
  int power = 1;
  while (power < at_least)
    power *= 2;
  return power;
}

bool preferred(const PersistentShape &a, const PersistentShape &b, int64_t rows) {
  if (a.cluster != b.cluster)
    return a.cluster == (rows <= kRowsForCluster);
  return (a.parts == 8) == (rows < kRowsForFourParts) && a.parts != b.parts;
}

// Why such a layer cannot be persistent on any device; empty where it may be.
std::string obstacle(const LstmShape &shape, int64_t rows, int64_t time_steps) {
  if (shape.activation_bits != 8)
    return "activations are not int8";
  if (shape.proj_size)
    return "there is a projection";
  if (time_steps < kFewestSteps)
    return "there is one time step";
  if (rows > kPersistentRows)
    return "the batch is larger than " + std::to_string(kPersistentRows);
  return "";
}

} // namespace

std::vector<PersistentShape> possible_shapes(const LstmShape &shape, const PackedLayer *layers,
                                             int64_t rows, const device::Limits &limits) {
  if (!obstacle(shape, rows, kFewestSteps).empty())
    return {};
  const Matrix &hh = layers[0].hh;
  const int64_t dense = divide_up(hh.num_columns, kColumnsOfBlocks);
  int longest = 0;
  for (int64_t d = 0; d < shape.num_directions; ++d)
    longest = std::max(longest, layers[d].hh.longest);
  const int64_t sparse = std::max<int64_t>(1, divide_up(longest, kPersistentWarps));

  std::vector<PersistentShape> shapes;
  for (int parts : {8, 4}) {
    PersistentShape cluster;
    cluster.cluster = true;
    cluster.parts = parts;
    cluster.tiles = cluster.blocks = static_cast<int>(dense);
    cluster.grid = power_of_two(divide_up(hh.num_tiles, dense));
    if (limits.clusters && cluster.grid <= kLargestCluster &&
        dense <= (parts == 8 ? kLargestTilesOfEightParts : kLargestClusterTiles))
      shapes.push_back(cluster);

    PersistentShape grid;
    grid.parts = parts;
    grid.sparse = 2 * sparse <= dense && sparse <= kLargestSparseBlocks;
    grid.blocks = static_cast<int>(grid.sparse ? sparse : dense);
    grid.grid = hh.num_tiles;
    if (grid.blocks <= kLargestBlocks && grid.grid * shape.num_directions <= limits.multiprocessors)
      shapes.push_back(grid);
  }
  const auto too_large = [&](const PersistentShape &s) {
    return static_cast<size_t>(layout_of(s, hh, rows).bytes) > limits.shared_bytes;
  };
  shapes.erase(std::remove_if(shapes.begin(), shapes.end(), too_large), shapes.end());
  std::sort(shapes.begin(), shapes.end(), [&](const PersistentShape &a, const PersistentShape &b) {
    return preferred(a, b, rows);
  });
  return shapes;
}

Choice choose(const LstmShape &shape, const PackedLayer *layers, int64_t rows, int64_t time_steps,
              const device::Limits &limits,
              const std::function<bool(const PersistentShape &)> &fits) {
  Choice choice;
  choice.reason = obstacle(shape, rows, time_steps);
  if (!choice.reason.empty())
    return choice;
  choice.reason = "the hidden size or the batch is too large for this device";
  const auto shapes = possible_shapes(shape, layers, rows, limits);
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
         (shape.sparse ? ", zeros skipped" : "");
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
  // A direction waits for its own blocks alone: two clusters may run one after the other.
  return (shape.cluster ? 1 : shape.grid * directions) <= found->second;
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
