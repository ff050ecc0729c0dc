// Which layers are persistent, in which shape, and what such a block has in shared memory.
#include <algorithm>

#include "check.h"
#include "device.h"
#include "forced.h"
#include "on_device.h"
#include "persistent_shared.h"
#include "stack.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

using cuda::Choice;
using device::Limits;

constexpr Limits kH100{132, 227 * 1024, true}, kA100{108, 163 * 1024, false},
    kSmall{20, 99 * 1024, false};

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A layer without memory; of so many blocks in its longest strip, or without zeros.
cuda::PackedLayer layer_of(int64_t hidden, int64_t longest = 0) {
  cuda::PackedLayer layer;
  layer.hh.num_columns = static_cast<int32_t>(hidden);
  layer.hh.num_tiles = static_cast<int32_t>(divide_up(hidden, 16));
  layer.hh.longest = static_cast<int32_t>(longest ? longest : divide_up(hidden, 32));
  return layer;
}

bool any_shape(const cuda::PersistentShape &) { return true; }

Choice choose(int64_t hidden, int64_t rows, int64_t directions, const Limits &limits,
              int64_t longest = 0, int64_t longest_of_reverse = 0) {
  const cuda::PackedLayer layers[] = {
      layer_of(hidden, longest),
      layer_of(hidden, longest_of_reverse ? longest_of_reverse : longest)};
  return cuda::choose(shape_of(5, hidden, 0, 1, directions), layers, rows, 10, limits, any_shape);
}

std::string described(const Choice &c) {
  const cuda::PersistentShape &s = c.shape;
  if (!c.persistent)
    return c.reason;
  return check::text(s.cluster  ? "cluster"
                     : s.sparse ? "sparse"
                                : "grid",
                     ' ', s.grid, " tiles ", s.tiles, " parts ", s.parts, " blocks ", s.blocks);
}

#define CHECK_DESCRIBED(choice, text)                                                              \
  do {                                                                                             \
    WITH(described(choice));                                                                       \
    CHECK(described(choice) == text);                                                              \
  } while (false)

TEST(what_is_chosen) {
  const std::string too_large = "the hidden size or the batch is too large for this device";
  // Few rows: a cluster, as long as there is one.
  CHECK_DESCRIBED(choose(1, 1, 1, kH100), "cluster 1 tiles 1 parts 8 blocks 1");
  CHECK_DESCRIBED(choose(151, 8, 2, kH100), "cluster 16 tiles 1 parts 8 blocks 1");
  CHECK_DESCRIBED(choose(256, 1, 1, kH100), "cluster 16 tiles 1 parts 8 blocks 1");
  CHECK_DESCRIBED(choose(257, 1, 1, kH100), "cluster 16 tiles 2 parts 8 blocks 2");
  CHECK_DESCRIBED(choose(512, 1, 1, kH100), "cluster 16 tiles 2 parts 8 blocks 2");
  CHECK_DESCRIBED(choose(513, 1, 1, kH100), "cluster 16 tiles 3 parts 4 blocks 3");
  CHECK_DESCRIBED(choose(768, 8, 1, kH100), "cluster 16 tiles 3 parts 4 blocks 3");
  CHECK_DESCRIBED(choose(769, 8, 1, kH100), "grid 49 tiles 1 parts 8 blocks 4");
  CHECK_DESCRIBED(choose(256, 1, 1, kA100), "grid 16 tiles 1 parts 8 blocks 1");
  // More rows: the grid, where it fits.
  CHECK_DESCRIBED(choose(256, 9, 1, kH100), "grid 16 tiles 1 parts 4 blocks 1");
  CHECK_DESCRIBED(choose(768, 64, 1, kA100), too_large);
  CHECK_DESCRIBED(choose(768, 33, 1, kA100), "grid 48 tiles 1 parts 4 blocks 3");
  CHECK_DESCRIBED(choose(320, 8, 1, kSmall), "grid 20 tiles 1 parts 8 blocks 2");
  CHECK_DESCRIBED(choose(321, 8, 1, kSmall), too_large);
  CHECK_DESCRIBED(choose(160, 8, 2, kSmall), "grid 10 tiles 1 parts 8 blocks 1");
  CHECK_DESCRIBED(choose(161, 8, 2, kSmall), too_large);
  CHECK_DESCRIBED(choose(320, 64, 1, kSmall), too_large);
  CHECK_DESCRIBED(choose(256, 16, 1, {20, 227 * 1024, true}), "grid 16 tiles 1 parts 4 blocks 1");
  CHECK_DESCRIBED(choose(512, 16, 1, {20, 227 * 1024, true}),
                  "cluster 16 tiles 2 parts 4 blocks 2");
  // As large as a device takes.
  CHECK_DESCRIBED(choose(1056, 1, 2, kH100), "grid 66 tiles 1 parts 8 blocks 5");
  CHECK_DESCRIBED(choose(1057, 1, 2, kH100), too_large);
  CHECK_DESCRIBED(choose(2048, 1, 1, kH100), "grid 128 tiles 1 parts 8 blocks 8");
  CHECK_DESCRIBED(choose(2049, 1, 1, kH100), too_large);
  CHECK_DESCRIBED(choose(2048, 64, 1, kH100), too_large);
  CHECK_DESCRIBED(choose(1728, 1, 1, kA100), "grid 108 tiles 1 parts 8 blocks 7");
  CHECK_DESCRIBED(choose(1729, 1, 1, kA100), too_large);
  // Zeros, where that halves the products and in both directions.
  CHECK_DESCRIBED(choose(1024, 1, 1, kH100, 16), "sparse 64 tiles 1 parts 8 blocks 2");
  CHECK_DESCRIBED(choose(1024, 9, 1, kH100, 3), "sparse 64 tiles 1 parts 4 blocks 1");
  CHECK_DESCRIBED(choose(1024, 1, 1, kH100, 17), "grid 64 tiles 1 parts 8 blocks 4");
  CHECK_DESCRIBED(choose(1024, 1, 2, kH100, 3, 16), "sparse 64 tiles 1 parts 8 blocks 2");
  CHECK_DESCRIBED(choose(1024, 1, 2, kH100, 3, 17), "grid 64 tiles 1 parts 8 blocks 4");
  CHECK_DESCRIBED(choose(1024, 1, 1, kH100, 3, 17), "sparse 64 tiles 1 parts 8 blocks 1");
  CHECK_DESCRIBED(choose(2048, 1, 1, kH100, 32), "sparse 128 tiles 1 parts 8 blocks 4");
  CHECK_DESCRIBED(choose(2112, 1, 1, kH100, 32), "sparse 132 tiles 1 parts 8 blocks 4");
  CHECK_DESCRIBED(choose(2112, 1, 1, kH100, 33), too_large);
  CHECK_DESCRIBED(choose(512, 9, 1, kH100, 8), "sparse 32 tiles 1 parts 4 blocks 1");
  CHECK_DESCRIBED(choose(512, 8, 1, kH100, 8), "cluster 16 tiles 2 parts 8 blocks 2");
}

TEST(what_the_device_does_not_place_is_not_chosen) {
  const cuda::PackedLayer layer = layer_of(512);
  const LstmShape shape = shape_of(5, 512);
  const auto no_cluster = [](const cuda::PersistentShape &s) { return !s.cluster; };
  CHECK_DESCRIBED(cuda::choose(shape, &layer, 1, 10, kH100, no_cluster),
                  "grid 32 tiles 1 parts 8 blocks 2");
  const auto none = [](const cuda::PersistentShape &) { return false; };
  CHECK(!cuda::choose(shape, &layer, 1, 10, kH100, none).persistent);
}

TEST(what_is_not_persistent) {
  const cuda::PackedLayer layers[] = {layer_of(40), layer_of(40)};
  const auto reason = [&](const LstmShape &shape, int64_t rows, int64_t time_steps) {
    const Choice choice = cuda::choose(shape, layers, rows, time_steps, kH100, any_shape);
    return choice.persistent ? "" : choice.reason;
  };
  CHECK(reason(shape_of(5, 40), 1, 2) == "");
  CHECK(reason(shape_of(5, 40, 0, 1, 2), 64, 2) == "");
  CHECK(reason(shape_of(5, 40), 1, 1) == "there is one time step");
  CHECK(reason(shape_of(5, 40), 65, 2) == "the batch is larger than 64");
  CHECK(reason(shape_of(5, 40, 20), 1, 2) == "there is a projection");
  CHECK(reason(shape_of(5, 40, 0, 1, 1, 16), 1, 2) == "activations are not int8");
  CHECK(reason(shape_of(5, 40, 0, 1, 1, 32), 1, 2) == "activations are not int8");
}

cuda::SharedLayout layout_of(const cuda::PersistentShape &s, int64_t hidden, int64_t rows) {
  const auto blocks = static_cast<int>(divide_up(divide_up(hidden, 16), s.tiles));
  return cuda::SharedLayout(
      {static_cast<int>(rows), static_cast<int>(hidden), s.tiles, s.parts, blocks, s.cluster});
}

// What a kernel needs of the shape it is given, and what the device needs.
void check_shape(const cuda::PersistentShape &s, int64_t hidden, int64_t rows, int64_t directions,
                 const Limits &limits, int64_t longest) {
  const int64_t tiles = divide_up(hidden, 16);
  CHECK(s.parts == 4 || s.parts == 8);
  CHECK(s.sparse ? s.blocks * 8 >= longest : s.blocks * 256 >= hidden);
  if (s.cluster) {
    CHECK(limits.clusters && !s.sparse);
    CHECK(s.tiles == s.blocks && s.grid * s.tiles >= tiles);
    CHECK(s.parts == 4 || s.tiles <= 2);
    CHECK(s.grid <= 16 && (s.grid & (s.grid - 1)) == 0);
  } else {
    CHECK(s.tiles == 1 && s.grid == tiles);
    CHECK(s.grid * directions <= limits.multiprocessors);
  }
  CHECK(static_cast<size_t>(layout_of(s, hidden, rows).bytes) <= limits.shared_bytes);
}

TEST(what_is_chosen_exists_and_fits) {
  for (const Limits &limits : {kH100, kA100, kSmall})
    for (int64_t directions : {1, 2})
      for (int64_t rows : {1, 8, 9, 16, 33, 57, 64, 65, 70})
        for (int64_t hidden = 1; hidden <= 2600; hidden += rows % 8 ? 1 : 7)
          for (int64_t longest : {divide_up(hidden, 32), divide_up(hidden, 90)}) {
            const Choice choice = choose(hidden, rows, directions, limits, longest);
            CHECK(!choice.reason.empty());
            if (!choice.persistent)
              continue;
            WITH("hidden ", hidden, " rows ", rows, " directions ", directions, " longest ",
                 longest);
            CHECK(rows <= 64);
            check_shape(choice.shape, hidden, rows, directions, limits, longest);
            // Looks for the instance.
            cuda::fits(choice.shape, layer_of(hidden), static_cast<int>(directions), rows, 0);
          }
}

TEST(all_blocks_are_at_work_at_once) {
  const auto fits = [](const cuda::PersistentShape &s, int64_t hidden, int directions) {
    return cuda::fits(s, layer_of(hidden), directions, 1, 0);
  };
  CHECK(fits(grid_of(1056, 8, 5), 1056, 2));
  CHECK(!fits(grid_of(1057, 8, 5), 1057, 2));
  CHECK(fits(grid_of(1057, 8, 5), 1057, 1));
  CHECK(fits(sparse_grid_of(2112, 8, 4), 2112, 1));
  CHECK(!fits(sparse_grid_of(2113, 8, 4), 2113, 1));
  CHECK(fits(cluster_of(256, 8, 1, 16), 256, 2));
  CHECK(fits(cluster_of(256, 8, 1, 16), 256, 9)); // they do not wait for each other
  CHECK_THROWS(fits(grid_of(40, 8, 9), 40, 1), "no persistent kernel for 9 blocks");
  CHECK_THROWS(fits(sparse_grid_of(40, 8, 5), 40, 1), "no persistent kernel for 5 blocks");
  CHECK_THROWS(fits(cluster_of(40, 8, 4), 40, 1), "no persistent kernel for 4 blocks");
}

TEST(arrays_of_shared_memory) {
  for (int rows : {1, 7, 8, 9, 33, 64})
    for (int hidden : {1, 31, 32, 129, 768, 2048})
      for (int tiles : {1, 2, 3})
        for (int parts : {4, 8})
          for (bool cluster : {false, true}) {
            const auto blocks = static_cast<int>(divide_up(divide_up(hidden, 16), tiles));
            WITH("rows ", rows, " hidden ", hidden, " tiles ", tiles, " parts ", parts, " cluster ",
                 cluster);
            const cuda::SharedLayout at({rows, hidden, tiles, parts, blocks, cluster});
            const int padded_rows = (rows + 7) / 8 * 8, units = tiles * 16;
            // An mma reads 8 rows; 8 lanes that read or write at once meet different banks.
            CHECK(at.h_stride >= (hidden + 31) / 32 * 32 && at.h_stride % 128 == 32);
            CHECK(at.h_bytes >= padded_rows * at.h_stride && at.h_bytes % 16 == 0);
            CHECK(at.gates_stride >= units * 4 && at.gates_stride % 32 == 16);
            CHECK(at.gates_floats >= rows * at.gates_stride && at.gates_floats % 4 == 0);
            CHECK(at.sums_stride >= rows && at.sums_stride % 2 == 1);
            CHECK(at.scales_floats >= rows);
            CHECK(at.nans_bytes >= (cluster ? blocks * 64 : 0) && at.nans_bytes % 16 == 0);
            const std::vector<std::pair<int, int>> arrays = {
                {at.h, 2 * at.h_bytes},
                {at.gates, 2 * at.gates_floats * 4},
                {at.scales, 2 * at.scales_floats * 4},
                {at.nans, 2 * at.nans_bytes},
                {at.sums, parts * units * 4 * at.sums_stride * 4},
                {at.c, rows * units * 4},
                {at.last_h, rows * units * 4},
                {at.first_scales, rows * 4},
                {at.weight_scales, units * 4 * 4},
                {at.own, rows * units},
                {at.own_nans, 64},
                {at.failed, 4},
                {at.full, 16}};
            int end = 0;
            for (const auto &[begin, bytes] : arrays) {
              CHECK(begin >= end && begin % 16 == 0);
              end = begin + bytes;
            }
            CHECK(at.bytes >= end);
          }
}

} // namespace
} // namespace lstm_fastkernels
