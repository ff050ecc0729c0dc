// Which layers are persistent, in which shape, and what such a block has in shared memory.
#include <algorithm>

#include "check.h"
#include "cuda/kernels/device.h"
#include "cuda/kernels/persistent_shared.h"
#include "forced.h"
#include "on_device.h"
#include "stack.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

using cuda::Choice;
using device::Limits;

constexpr Limits kH100{132, 227 * 1024, true}, kA100{108, 163 * 1024, false},
    kSmall{20, 99 * 1024, false};

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A layer without memory.
cuda::PackedLayer layer_of(int64_t hidden, Precision precision = kInt8) {
  cuda::PackedLayer layer;
  layer.hh.precision = precision;
  layer.hh.num_columns = static_cast<int32_t>(hidden);
  layer.hh.num_tiles = static_cast<int32_t>(divide_up(hidden, 16));
  return layer;
}

bool any_shape(const cuda::PersistentShape &) { return true; }

Choice choose(int64_t hidden, int64_t rows, int64_t directions, const Limits &limits,
              Precision precision = kInt8) {
  const cuda::PackedLayer layer = layer_of(hidden, precision), layers[] = {layer, layer};
  return cuda::choose(shape_of(5, hidden, 0, 1, directions), layers, rows, 10, limits, any_shape);
}

std::string described(const Choice &c) {
  const cuda::PersistentShape &s = c.shape;
  if (!c.persistent)
    return c.reason;
  return check::text(s.arithmetic == Arithmetic::signed16 ? "int16 " : "",
                     s.cluster ? "cluster" : "grid", ' ', s.grid, " tiles ", s.tiles, " fragments ",
                     s.fragments,
                     s.ranges > 1 ? check::text(" ranges ", s.ranges, " of ", s.rows) : "");
}

#define CHECK_DESCRIBED(choice, text)                                                              \
  do {                                                                                             \
    WITH(described(choice));                                                                       \
    CHECK(described(choice) == text);                                                              \
  } while (false)

TEST(what_is_chosen) {
  const std::string too_large = "the hidden size or the batch is too large for this device";
  // Few rows, or one tile a block: a cluster, as long as there is one.
  CHECK_DESCRIBED(choose(1, 1, 1, kH100), "cluster 2 tiles 1 fragments 1");
  CHECK_DESCRIBED(choose(151, 8, 2, kH100), "cluster 16 tiles 1 fragments 1");
  CHECK_DESCRIBED(choose(256, 1, 1, kH100), "cluster 16 tiles 1 fragments 1");
  CHECK_DESCRIBED(choose(257, 1, 1, kH100), "cluster 16 tiles 2 fragments 2");
  CHECK_DESCRIBED(choose(512, 1, 1, kH100), "cluster 16 tiles 2 fragments 2");
  CHECK_DESCRIBED(choose(513, 1, 1, kH100), "cluster 16 tiles 3 fragments 3");
  CHECK_DESCRIBED(choose(768, 8, 1, kH100), "cluster 16 tiles 3 fragments 3");
  CHECK_DESCRIBED(choose(769, 8, 1, kH100), "grid 49 tiles 1 fragments 4");
  CHECK_DESCRIBED(choose(256, 64, 2, kH100), "cluster 16 tiles 1 fragments 1");
  CHECK_DESCRIBED(choose(256, 1, 1, kA100), "grid 16 tiles 1 fragments 1");
  // More rows: the grid, where it fits.
  CHECK_DESCRIBED(choose(257, 9, 1, kH100), "grid 17 tiles 1 fragments 2");
  CHECK_DESCRIBED(choose(768, 64, 1, kA100), "grid 48 tiles 1 fragments 3 ranges 2 of 32");
  CHECK_DESCRIBED(choose(768, 52, 1, kA100), "grid 48 tiles 1 fragments 3");
  CHECK_DESCRIBED(choose(880, 53, 1, kA100), too_large);
  CHECK_DESCRIBED(choose(320, 8, 1, kSmall), "grid 20 tiles 1 fragments 2");
  CHECK_DESCRIBED(choose(321, 8, 1, kSmall), too_large);
  CHECK_DESCRIBED(choose(160, 8, 2, kSmall), "grid 10 tiles 1 fragments 1");
  CHECK_DESCRIBED(choose(161, 8, 2, kSmall), too_large);
  CHECK_DESCRIBED(choose(320, 40, 1, kSmall), "grid 20 tiles 1 fragments 2");
  CHECK_DESCRIBED(choose(320, 41, 1, kSmall), too_large);
  CHECK_DESCRIBED(choose(320, 16, 1, {20, 227 * 1024, true}), "grid 20 tiles 1 fragments 2");
  CHECK_DESCRIBED(choose(512, 16, 1, {20, 227 * 1024, true}), "cluster 16 tiles 2 fragments 2");
  // As large as a device takes.
  CHECK_DESCRIBED(choose(1056, 1, 2, kH100), "grid 66 tiles 1 fragments 5");
  CHECK_DESCRIBED(choose(1057, 1, 2, kH100), too_large);
  CHECK_DESCRIBED(choose(2048, 36, 1, kH100), "grid 128 tiles 1 fragments 8");
  CHECK_DESCRIBED(choose(2048, 37, 1, kH100), too_large);
  CHECK_DESCRIBED(choose(2049, 1, 1, kH100), too_large);
  CHECK_DESCRIBED(choose(1728, 1, 1, kA100), "grid 108 tiles 1 fragments 7");
  CHECK_DESCRIBED(choose(1729, 1, 1, kA100), too_large);
  // A batch in ranges of rows.
  CHECK_DESCRIBED(choose(512, 256, 1, kH100), "grid 32 tiles 1 fragments 2 ranges 4 of 64");
  CHECK_DESCRIBED(choose(528, 256, 1, kH100), "grid 33 tiles 1 fragments 3 ranges 4 of 64");
  CHECK_DESCRIBED(choose(529, 256, 1, kH100), too_large);
  CHECK_DESCRIBED(choose(1056, 65, 1, kH100), "grid 66 tiles 1 fragments 5 ranges 2 of 40");
  CHECK_DESCRIBED(choose(1057, 65, 1, kH100), too_large);
  CHECK_DESCRIBED(choose(528, 128, 2, kH100), "grid 33 tiles 1 fragments 3 ranges 2 of 64");
  CHECK_DESCRIBED(choose(256, 128, 2, kH100), "cluster 16 tiles 1 fragments 1 ranges 2 of 64");
  CHECK_DESCRIBED(choose(160, 64, 1, kSmall), "grid 10 tiles 1 fragments 1 ranges 2 of 32");
}

TEST(what_is_chosen_for_int16) {
  const auto choose16 = [](int64_t hidden, int64_t rows) {
    return choose(hidden, rows, 1, kH100, kInt16);
  };
  CHECK_DESCRIBED(choose16(512, 8), "int16 cluster 16 tiles 2 fragments 2");
  CHECK_DESCRIBED(choose16(513, 8), "int16 grid 33 tiles 1 fragments 3");
  CHECK_DESCRIBED(choose16(2048, 36), "int16 grid 128 tiles 1 fragments 8");
}

// What docs/cuda.md says.
TEST(the_most_rows) {
  const std::string too_large = "the hidden size or the batch is too large for this device";
  const Limits no_grid{1, 227 * 1024, true};
  const auto most = [&](int64_t hidden, Precision precision, const Limits &limits) {
    int64_t rows = 64;
    const cuda::PackedLayer layer = layer_of(hidden, precision);
    const auto in_one_range = [](const cuda::PersistentShape &s) { return s.ranges == 1; };
    while (rows > 0 &&
           !cuda::choose(shape_of(5, hidden), &layer, rows, 10, limits, in_one_range).persistent)
      --rows;
    return rows;
  };
  const auto check = [&](int64_t hidden, const Limits &limits, int64_t int8, int64_t int16) {
    const int64_t found8 = most(hidden, kInt8, limits), found16 = most(hidden, kInt16, limits);
    WITH("hidden ", hidden, " multiprocessors ", limits.multiprocessors, ": ", found8, " ",
         found16);
    CHECK(found8 == int8 && found16 == int16);
  };
  const Limits no_cluster{132, 227 * 1024, false};
  check(256, no_grid, 64, 64);
  check(512, no_grid, 44, 44);
  check(768, no_grid, 24, 0);
  check(1024, no_cluster, 64, 64);
  check(2048, no_cluster, 36, 36);
  check(1024, kA100, 44, 44);
  check(1728, kA100, 28, 28);
  check(320, kSmall, 40, 40);
  const Limits many{142, 99 * 1024, false};
  check(1024, many, 20, 20);
  check(2048, many, 12, 12);
}

TEST(what_the_device_does_not_place_is_not_chosen) {
  const cuda::PackedLayer layer = layer_of(512);
  const LstmShape shape = shape_of(5, 512);
  const auto no_cluster = [](const cuda::PersistentShape &s) { return !s.cluster; };
  CHECK_DESCRIBED(cuda::choose(shape, &layer, 1, 10, kH100, no_cluster),
                  "grid 32 tiles 1 fragments 2");
  const auto none = [](const cuda::PersistentShape &) { return false; };
  CHECK(!cuda::choose(shape, &layer, 1, 10, kH100, none).persistent);
}

TEST(what_is_not_persistent) {
  const auto reason_of = [&](const LstmShape &shape, Precision forward, Precision reverse,
                             int64_t rows, int64_t time_steps) {
    const cuda::PackedLayer layers[] = {layer_of(40, forward), layer_of(40, reverse)};
    const Choice choice = cuda::choose(shape, layers, rows, time_steps, kH100, any_shape);
    return choice.persistent ? "" : choice.reason;
  };
  const auto reason = [&](const TypedShape &shape, int64_t rows, int64_t time_steps) {
    return reason_of(shape, shape.precision, shape.precision, rows, time_steps);
  };
  CHECK(reason(shape_of(5, 40), 1, 2) == "");
  CHECK(reason(shape_of(5, 40, 0, 1, 2), 64, 2) == "");
  CHECK(reason(shape_of(5, 40), 1, 1) == "there is one time step");
  CHECK(reason(shape_of(5, 40), 256, 2) == "");
  CHECK(reason(shape_of(5, 40), 257, 2) == "the batch is larger than 256");
  CHECK(reason(shape_of(5, 40, 0, 1, 2), 128, 2) == "");
  CHECK(reason(shape_of(5, 40, 0, 1, 2), 129, 2) == "the batch is larger than 128");
  CHECK(reason(shape_of(5, 40, 20), 1, 2) == "there is a projection");
  CHECK(reason(shape_of(5, 40, 0, 1, 1, kInt16), 1, 2) == "");
  CHECK(reason(shape_of(5, 40, 0, 1, 1, kFloat32), 1, 2) == "weight_hh is float32");
  CHECK(reason(shape_of(5, 40, 0, 1, 1, kInt4), 1, 2) == "weight_hh is int4");
  CHECK(reason_of(shape_of(5, 40, 0, 1, 2), kInt16, kInt8, 1, 2) ==
        "weight_hh has another precision in each direction");
  CHECK(reason_of(shape_of(5, 40), kInt16, kInt8, 1, 2) == "");
}

cuda::SharedLayout layout_of(const cuda::PersistentShape &s, int64_t hidden, int64_t rows) {
  const auto blocks = static_cast<int>(divide_up(divide_up(hidden, 16), s.tiles));
  return cuda::SharedLayout(
      {static_cast<int>(rows), static_cast<int>(hidden), s.tiles, blocks, s.cluster});
}

// What a kernel needs of the shape it is given, and what the device needs.
void check_shape(const cuda::PersistentShape &s, int64_t hidden, int64_t rows, int64_t directions,
                 const Limits &limits) {
  const int64_t tiles = divide_up(hidden, 16);
  CHECK(s.fragments * 256 >= hidden);
  if (s.cluster) {
    CHECK(limits.clusters);
    CHECK(s.tiles == s.fragments && s.grid * s.tiles >= tiles);
    CHECK(1 < s.grid && s.grid <= 16 && (s.grid & (s.grid - 1)) == 0);
  } else {
    CHECK(s.tiles == 1 && s.grid == tiles);
    CHECK(s.grid * directions * s.ranges <= limits.multiprocessors);
  }
  CHECK(s.ranges * directions <= cuda::kMostSideBySide && s.rows <= 64);
  CHECK(s.rows > 0 && s.rows == cuda::rows_of_range(rows, s.ranges));
  CHECK(static_cast<size_t>(layout_of(s, hidden, s.rows).bytes) <= limits.shared_bytes);
}

TEST(what_is_chosen_exists_and_fits) {
  for (const Limits &limits : {kH100, kA100, kSmall})
    for (int64_t directions : {1, 2})
      for (int64_t rows : {1, 8, 9, 16, 33, 57, 64, 65, 130, 201, 257})
        for (int64_t hidden = 1; hidden <= 2600; hidden += rows % 8 ? 1 : 7) {
          const Choice choice = choose(hidden, rows, directions, limits, rows % 2 ? kInt8 : kInt16);
          CHECK(!choice.reason.empty());
          if (!choice.persistent)
            continue;
          WITH("hidden ", hidden, " rows ", rows, " directions ", directions);
          CHECK(rows <= 256);
          check_shape(choice.shape, hidden, rows, directions, limits);
          // Looks for the instance.
          cuda::fits(choice.shape, layer_of(hidden), static_cast<int>(directions), 0);
        }
}

TEST(ranges_hold_the_batch) {
  for (int64_t batch = 1; batch <= 300; ++batch)
    for (int ranges = 1; ranges <= 5; ++ranges) {
      const int64_t rows = cuda::rows_of_range(batch, ranges);
      WITH("batch ", batch, " ranges ", ranges, " rows ", rows);
      if (rows == 0) { // the last one would have none
        CHECK((ranges - 1) * divide_up(divide_up(batch, ranges), 8) * 8 >= batch);
        continue;
      }
      CHECK(ranges * rows >= batch && (ranges - 1) * rows < batch);
      CHECK(ranges == 1 ? rows == batch : rows % 8 == 0 && rows - 8 < divide_up(batch, ranges));
    }
}

TEST(how_many_are_at_work_at_once) {
  const auto at_once = [](const cuda::PersistentShape &s, int64_t hidden, int64_t rows,
                          int ranges = 1) {
    return cuda::at_once(of_rows(s, rows, ranges), layer_of(hidden), 0);
  };
  CHECK(at_once(grid_of(16, 1), 16, 1) == 4);
  CHECK(at_once(grid_of(16, 1), 16, 20, 2) == 2);
  CHECK(at_once(grid_of(16, 1), 16, 20, 3) == 1);
  CHECK(at_once(grid_of(512, 2), 512, 1) == 4);
  CHECK(at_once(grid_of(529, 3), 529, 9) == 3);
  CHECK(at_once(grid_of(512, 2), 512, 65) == 2);
  CHECK(at_once(grid_of(512, 2), 512, 256) == 1);
  CHECK(at_once(cluster_of(256, 1, 16), 256, 64) == 4);
  CHECK(at_once(cluster_of(520, 3, 16), 520, 100) == 2);
  CHECK(at_once(cluster_of(256, 1, 16), 256, 150) == 1);
}

TEST(all_blocks_are_at_work_at_once) {
  const auto fits = [](const cuda::PersistentShape &s, int64_t hidden, int directions) {
    return cuda::fits(of_rows(s, 1), layer_of(hidden), directions, 0);
  };
  CHECK(fits(grid_of(1056, 5), 1056, 2));
  CHECK(!fits(grid_of(1057, 5), 1057, 2));
  CHECK(fits(grid_of(1057, 5), 1057, 1));
  CHECK(fits(grid_of(2112, 8), 2112, 1));
  CHECK(!fits(grid_of(2113, 8), 2113, 1));
  CHECK(fits(cluster_of(256, 1, 16), 256, 2));
  CHECK(fits(cluster_of(256, 1, 16), 256, 9)); // they do not wait for each other
  CHECK_THROWS(fits(grid_of(40, 9), 40, 1), "no persistent kernel for 9 fragments");
  CHECK_THROWS(fits(cluster_of(40, 4), 40, 1), "no persistent kernel for 4 fragments");
}

TEST(arrays_of_shared_memory) {
  for (int rows : {1, 7, 8, 9, 33, 64})
    for (int hidden : {1, 31, 32, 129, 768, 2048})
      for (int tiles : {1, 2, 3})
        for (bool cluster : {false, true}) {
          const auto blocks = static_cast<int>(divide_up(divide_up(hidden, 16), tiles));
          WITH("rows ", rows, " hidden ", hidden, " tiles ", tiles, " cluster ", cluster);
          const cuda::SharedLayout at({rows, hidden, tiles, blocks, cluster});
          const int units = tiles * 16;
          // 8 lanes that read or write at once meet different banks.
          CHECK(at.h_stride >= (hidden + 31) / 32 * 64 && at.h_stride % 128 == 64);
          CHECK(at.h_bytes >= rows * at.h_stride && at.h_bytes % 16 == 0);
          CHECK(at.gates_stride >= units * 4 && at.gates_stride % 32 == 16);
          CHECK(at.sums_stride >= units && at.sums_stride % 8 == 1);
          CHECK(at.rows >= rows && at.rows % 4 == 0);
          CHECK(at.sum_rows >= std::min(rows, cuda::kRowsAtOnce));
          CHECK(at.nan_pieces >= (cluster ? blocks : 0));
          const std::vector<std::pair<int, int>> arrays = {
              {at.own_nans, 8},
              {at.row_nans, 8},
              {at.failed, 4},
              {at.full, 16},
              {at.weight_scales, units * 16},
              {at.weight_sums, units * 16},
              {at.row_units, rows * 4},
              {at.row_quantizers, rows * int{sizeof(cuda::SharedQuantizer)}},
              {at.own, rows * units * 2},
              {at.c, rows * units * 4},
              {at.last_h, rows * units * 4},
              {at.gates, 2 * at.rows * at.gates_stride * 4},
              {at.sums, 8 * at.sum_rows * at.sums_stride * 16},
              {at.h, (cluster ? 2 : 1) * at.h_bytes},
              {at.nans, 2 * at.nan_pieces * 16}};
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
