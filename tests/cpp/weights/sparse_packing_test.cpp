// What of a matrix in blocks ends up in the packed form: only the blocks of 8 x 4 that are not
// zero, however the caller holds them.
#include <algorithm>

#include "check.h"
#include "stack.h"
#include "support.h"
#include "weights/packed_stack.h"

namespace lstm_fastkernels {
namespace {

SourceStack pruned(const TypedShape &shape, BlockShape block, float density) {
  return in_blocks(random_stack(shape, Weights::any, 51), block, density);
}

SourceStack held_in(SourceStack stack, BlockShape block, bool explicit_zeros = false) {
  stack.for_each_matrix([&](SourceMatrix &m) {
    m.block = block;
    m.explicit_zeros = explicit_zeros;
  });
  return stack;
}

// What follows the records, which say how the caller's blocks were.
std::vector<uint8_t> contents(const SourceStack &stack) {
  const auto packed = stack.packed();
  return {packed.begin() + header_size(stack.shape), packed.end()};
}

TEST(the_callers_blocks_do_not_matter) {
  for_each_stack_in_blocks([](const SourceStack &stack) {
    const auto packed = contents(stack);
    for (const BlockShape &other : kBlockShapes)
      for (bool explicit_zeros : {false, true})
        CHECK(contents(held_in(stack, other, explicit_zeros)) == packed);
  });
}

// A mask leaves -0 where it takes a negative weight away.
TEST(negative_zeros_are_left_out) {
  SourceStack stack = pruned(shape_of(33, 35, 9, 1, 1, kFloat32), {8, 4}, 0.5f);
  const size_t bytes = stack.packed().size();
  stack.for_each_matrix([](SourceMatrix &m) {
    std::replace(m.weights.begin(), m.weights.end(), 0.0f, -0.0f);
    m.explicit_zeros = true;
  });
  CHECK(stack.packed().size() == bytes);
}

// Any weight that is not zero keeps its block, in whichever corner.
TEST(no_weight_is_lost) {
  for (Precision precision : {kInt8, kFloat32})
    for (int64_t row : {0, 7, 8, 10, 11, 43})
      for (int64_t column : {0, 3, 4, 8}) {
        WITH("precision ", precision_name(precision), " row ", row, " column ", column);
        SourceStack stack = pruned(shape_of(9, 11, 0, 1, 1, precision), {16, 32}, 0.0f);
        const size_t empty = stack.packed().size();
        SourceMatrix &m = stack.layers[0].ih;
        m.weights[static_cast<size_t>(row * m.columns + column)] = 1;
        const auto packed = stack.packed();
        CHECK(packed.size() > empty);
        const Matrix matrix = PackedStack(packed.data(), packed.size()).layers[0].ih;
        CHECK(matrix.positions == 1);
        CHECK(std::count_if(
                  matrix.blocks, matrix.blocks + kSliceStrips * block_bytes(matrix.arithmetic),
                  [](uint8_t byte) { return byte != 0; }) == (precision == kInt8 ? 1 : 2));
      }
}

double bytes_kept(const SourceStack &stack) {
  SourceStack all = stack;
  int64_t kept = 0;
  all.for_each_matrix([&](const SourceMatrix &m) {
    kept += std::count_if(m.weights.begin(), m.weights.end(), [](float w) { return w != 0; });
  });
  return static_cast<double>(kept * (stack.precision() == kFloat32 ? 4 : 1));
}

// Of a tenth of the blocks: their columns, slices filled up, and what each row has.
TEST(packed_blocks_take_little_more_than_their_weights) {
  for (Precision precision : kBlockPrecisions)
    for (const BlockShape &block : kBlockShapes) {
      WITH("precision ", precision_name(precision), " rows a block ", block.rows);
      const SourceStack stack = pruned(shape_of(512, 128, 0, 1, 1, precision), block, 0.1f);
      CHECK(static_cast<double>(stack.packed().size()) <=
            (precision == kFloat32 ? 1.25 : 1.5) * bytes_kept(stack));
    }
}

// Strips of a slice have about as many blocks: filling up costs little.
TEST(slices_are_hardly_filled_up) {
  for (float density : {0.1f, 0.3f, 0.5f}) {
    WITH("density ", density);
    const SourceStack stack = pruned(shape_of(512, 128, 0, 1, 1, kFloat32), {8, 4}, density);
    const auto packed = stack.packed();
    const PackedLayer layer = PackedStack(packed.data(), packed.size()).layers[0];
    const auto products = static_cast<double>(layer.ih.products() + layer.hh.products());
    CHECK(products <= 1.15 * bytes_kept(stack) / 4);
  }
}

} // namespace
} // namespace lstm_fastkernels
