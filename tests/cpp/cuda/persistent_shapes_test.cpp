// Every instance of the persistent kernel gives the bits of the CPU's kernels, in small and in
// large sizes.
#include "check.h"
#include "orders.h"
#include "persistent_case.h"

namespace lstm_fastkernels {
namespace {

struct Size {
  int fragments; // of a band that a warp holds; tiles of a cluster's block
  int64_t hidden, T, B, directions;
};

Case random_case(const Size &s, uint64_t seed, float density = 1.0f, Precision precision = kInt8) {
  const TypedShape shape = shape_of(3, s.hidden, 0, 1, s.directions, precision);
  SourceStack stack = random_stack(shape, Weights::any, seed);
  if (density < 1.0f)
    for (SourceLayer &layer : stack.layers)
      layer.hh.prune({16, 32}, density, seed + 1);
  return Case(stack, random_sequence(shape, s.T, s.B, seed + 2));
}

template <class Test> void for_each_size(const std::vector<Size> &sizes, const Test &test) {
  for (const Size &s : sizes) {
    if (s.hidden > kLargestHidden)
      continue;
    WITH("hidden ", s.hidden, " T ", s.T, " B ", s.B, " directions ", s.directions);
    test(s);
  }
}

TEST(every_cluster) {
  const std::vector<Size> sizes = {{1, 1, 3, 1, 2},   {1, 15, 7, 9, 1},  {1, 16, 2, 64, 1},
                                   {1, 17, 7, 7, 2},  {1, 151, 3, 8, 2}, {1, 255, 2, 33, 1},
                                   {2, 17, 3, 33, 1}, {2, 257, 3, 9, 1}, {2, 300, 2, 32, 1},
                                   {2, 300, 3, 1, 2}, {3, 31, 7, 9, 1},  {3, 520, 2, 8, 1},
                                   {3, 768, 2, 9, 1}};
  for_each_size(sizes, [](const Size &s) {
    random_case(s, 101).check(cluster_of(s.hidden, s.fragments));
    if (s.fragments <= cuda::most_cluster_tiles(Arithmetic::signed16))
      random_case(s, 102, 1.0f, kInt16).check(cluster_of(s.hidden, s.fragments));
  });
}

TEST(every_grid) {
  const std::vector<Size> sizes = {
      {1, 1, 3, 1, 2},   {1, 15, 7, 9, 1},   {1, 16, 2, 64, 1}, {1, 17, 7, 7, 2},
      {1, 151, 3, 8, 1}, {1, 255, 2, 33, 1}, {2, 257, 3, 9, 2}, {2, 300, 2, 64, 1},
      {3, 520, 2, 8, 1}, {3, 768, 3, 25, 1}, {4, 790, 2, 2, 1}, {4, 800, 2, 17, 1},
      {5, 330, 2, 1, 1}, {5, 330, 2, 9, 1},  {6, 330, 2, 1, 1}, {6, 1300, 2, 16, 1}};
  for_each_size(sizes, [](const Size &s) {
    random_case(s, 103).check(grid_of(s.hidden, s.fragments));
    random_case(s, 104, 0.1f).check(grid_of(s.hidden, s.fragments));
    random_case(s, 105, 1.0f, kInt16).check(grid_of(s.hidden, s.fragments));
    random_case(s, 106, 0.1f, kInt16).check(grid_of(s.hidden, s.fragments));
  });
}

// As many blocks as the emulator runs at once; of 8, the last warps hold none.
TEST(the_largest_grids) {
  const std::vector<Size> sizes = {{7, 1792, 2, 1, 1}, {7, 1792, 2, 9, 1}, {8, 1792, 2, 9, 1}};
  for_each_size(sizes, [](const Size &s) {
    random_case(s, 105, 0.3f).check(grid_of(s.hidden, s.fragments));
  });
}

TEST(every_number_of_rows) {
  for (Precision precision : kArithmetics)
    for (int64_t B = 1; B <= 64; B += B < 26 ? 1 : 6) {
      const Case of = random_case({1, 40, 3, B, 2}, 107, 1.0f, precision);
      WITH("batch ", B);
      of.check(grid_of(40, 1));
      of.check(cluster_of(40, 1));
    }
}

// Where there are too few blocks for all warps, and too few tiles for all blocks.
TEST(more_room_than_needed) {
  for (int64_t B : {5, 9})
    for (float density : {0.3f, 1.0f}) {
      const Case of = random_case({1, 70, 4, B, 2}, 109, density);
      for (int fragments = 1; fragments <= cuda::kMostFragments; ++fragments)
        of.check(grid_of(70, fragments));
      for (int tiles : {1, 2, 3})
        for (int size : {2, 8, 16})
          of.check(cluster_of(70, tiles, size));
    }
}

} // namespace
} // namespace lstm_fastkernels
