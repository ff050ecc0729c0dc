// The products of block-sparse matrices, exact on every instruction set; float32 ones where no
// float sum can round.
#include "check.h"
#include "products.h"
#include "stack.h"
#include "support.h"
#include "weights/packed.h"

namespace lstm_fastkernels {
namespace {

constexpr float kDensities[] = {0.0f, 0.05f, 0.5f, 1.0f};

void check_stack(const SourceStack &stack, const std::vector<int64_t> &step_rows) {
  const auto memory = stack.packed();
  const PackedLayer packed = PackedStack(memory.data(), memory.size()).layers[0];
  const SourceLayer &source = stack.layers[0];
  CHECK(packed.ih.is_sparse() && packed.hh.is_sparse());
  check_products(source.ih, packed.ih, packed.bias);
  if (stack.shape.proj_size)
    check_products(source.hr, packed.hr, nullptr);
  for (int64_t rows : step_rows)
    check_step(source.hh, packed.hh, rows);
}

TEST(sparse_products_are_exact) {
  for (Precision precision : kBlockPrecisions)
    for (Pattern pattern : {kPairSafe[0], kPairSafe[3], kAny[0], kAny[3]})
      for (const BlockShape &block : kBlockShapes)
        for (float density : kDensities) {
          WITH("precision ", precision_name(precision), " rows a block ", block.rows, " density ",
               density);
          const TypedShape shape = shape_of(33, 9, 5, 1, 1, precision);
          check_stack(in_blocks(patterned_stack(shape, pattern), block, density), {1, 3, 8});
        }
}

TEST(sparse_products_of_a_step_are_exact) {
  for (Precision precision : kBlockPrecisions)
    for (Pattern pattern : {kPairSafe[0], kAny[3]}) {
      WITH("precision ", precision_name(precision));
      const SourceStack stack =
          in_blocks(patterned_stack(shape_of(1, 33, 0, 1, 1, precision), pattern), {8, 4}, 0.5f);
      const auto memory = stack.packed();
      const PackedLayer packed = PackedStack(memory.data(), memory.size()).layers[0];
      for (int64_t rows = 1; rows <= 20; ++rows)
        check_step(stack.layers[0].hh, packed.hh, rows);
    }
}

// Every pair of sizes, with a kind of weights, blocks and density that chance gives it.
TEST(sparse_products_of_awkward_sizes_are_exact) {
  Random random(1);
  for (int64_t columns : kAwkward)
    for (int64_t hidden : {1, 7, 8, 31, 33}) {
      const Precision precision = kBlockPrecisions[random.integer(0, 2)];
      const BlockShape &block = kBlockShapes[static_cast<size_t>(random.integer(0, 2))];
      const float density = kDensities[random.integer(0, 3)];
      const Pattern pattern = (random.integer(0, 1) ? kPairSafe : kAny)[random.integer(0, 3)];
      const int64_t proj = random.integer(0, hidden - 1);
      WITH("columns ", columns, " hidden ", hidden, " proj ", proj, " precision ",
           precision_name(precision), " rows a block ", block.rows, " density ", density);
      const TypedShape shape = shape_of(columns, hidden, proj, 1, 1, precision);
      check_stack(in_blocks(patterned_stack(shape, pattern), block, density), {2, 9});
    }
}

// 17, 18, 19 and 33 tiles: slices are of 16 tiles each, the last ones of what is left.
TEST(sparse_products_of_several_windows_are_exact) {
  for (int64_t hidden : {129, 137, 151, 264})
    for (Precision precision : kBlockPrecisions) {
      WITH("hidden ", hidden, " precision ", precision_name(precision));
      const TypedShape shape = shape_of(9, hidden, 7, 1, 1, precision);
      check_stack(in_blocks(patterned_stack(shape, kAny[3]), {8, 4}, 0.5f), {1, 4, 9});
    }
}

TEST(sparse_projections_of_several_windows_are_exact) {
  for (Precision precision : {kInt8, kFloat32}) {
    WITH("precision ", precision_name(precision));
    const TypedShape shape = shape_of(1, 522, 521, 1, 1, precision);
    check_stack(in_blocks(patterned_stack(shape, kAny[3]), {16, 32}, 0.05f), {});
  }
}

} // namespace
} // namespace lstm_fastkernels
