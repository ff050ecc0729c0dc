// The integer products of every kernel against int64 sums over the caller's own weights, with the
// weights and activations that would make an int16 or int32 sum overflow first.
#include "check.h"
#include "products.h"
#include "stack.h"
#include "support.h"
#include "weights/packed.h"

namespace lstm_fastkernels {
namespace {

constexpr int64_t kHidden = 9; // two tiles, the second nearly empty

void check_all_columns(const Pattern (&patterns)[4], Arithmetic arithmetic) {
  for (int64_t columns : {1, 2, 3, 4, 5, 7, 8, 9, 31, 33, 151})
    for (int p = 0; p < 4; ++p) {
      WITH("arithmetic ", static_cast<int>(arithmetic), " columns ", columns, " pattern ", p);
      const Precision precision = arithmetic == Arithmetic::signed16 ? kInt16 : kInt8;
      const SourceStack stack =
          patterned_stack(shape_of(columns, kHidden, 3, 1, 1, precision), patterns[p]);
      const auto memory = stack.packed();
      const PackedLayer layer = PackedStack(memory.data(), memory.size()).layers[0];
      // Below two columns any weights are pair-safe.
      CHECK(layer.ih.arithmetic == arithmetic ||
            (arithmetic == Arithmetic::any8 && (columns == 1 || p == 3)));
      check_products(stack.layers[0].ih, layer.ih, layer.bias);
      check_products(stack.layers[0].hr, layer.hr, nullptr);
    }
}

TEST(products_of_pair_safe_weights_are_exact) { check_all_columns(kPairSafe, Arithmetic::pairs8); }
TEST(products_of_any_weights_are_exact) { check_all_columns(kAny, Arithmetic::any8); }
TEST(products_of_wide_activations_are_exact) { check_all_columns(kAny, Arithmetic::signed16); }

// The largest sums: int16 row sums at their end, int32 sums at theirs.
TEST(products_of_long_rows_are_exact) {
  for (Precision precision : {kInt8, kInt16})
    for (int64_t columns : {511, 512, 1031})
      for (const Pattern pattern : {kPairSafe[0], kPairSafe[1], kAny[0], kAny[1]}) {
        WITH("columns ", columns, " precision ", precision_name(precision));
        const SourceStack stack =
            patterned_stack(shape_of(columns, 1, 0, 1, 1, precision), pattern);
        const auto memory = stack.packed();
        const PackedLayer layer = PackedStack(memory.data(), memory.size()).layers[0];
        check_products(stack.layers[0].ih, layer.ih, layer.bias);
      }
}

// More than 1 MB, which kernels take for the second cache, and a little less.
TEST(products_of_large_matrices_are_exact) {
  for (int64_t columns : {6529, 7001})
    for (const Pattern pattern : {kPairSafe[2], kAny[3]}) {
      WITH("columns ", columns);
      const SourceStack stack = patterned_stack(shape_of(columns, 33, 0, 1), pattern);
      const auto memory = stack.packed();
      const PackedLayer layer = PackedStack(memory.data(), memory.size()).layers[0];
      check_products(stack.layers[0].ih, layer.ih, layer.bias);
    }
}

TEST(projections_of_awkward_sizes_are_exact) {
  for (Precision precision : {kInt8, kInt16})
    for (int64_t proj : {1, 31, 32, 33, 65}) {
      WITH("proj ", proj, " precision ", precision_name(precision));
      const SourceStack stack = patterned_stack(shape_of(1, 67, proj, 1, 1, precision), kAny[3]);
      const auto memory = stack.packed();
      const PackedLayer layer = PackedStack(memory.data(), memory.size()).layers[0];
      check_products(stack.layers[0].hr, layer.hr, nullptr);
    }
}

TEST(products_of_a_step_are_exact) {
  for (Precision precision : {kInt8, kInt16})
    for (int64_t hidden : {1, 7, 9, 33, 64, 151})
      for (const Pattern pattern : {kPairSafe[0], kPairSafe[2], kAny[0], kAny[3]})
        for (int64_t rows : {1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 17, 20, 33, 67}) {
          WITH("hidden ", hidden, " precision ", precision_name(precision));
          const SourceStack stack =
              patterned_stack(shape_of(1, hidden, 0, 1, 1, precision), pattern);
          const auto memory = stack.packed();
          const PackedLayer layer = PackedStack(memory.data(), memory.size()).layers[0];
          check_step(stack.layers[0].hh, layer.hh, rows);
        }
}

} // namespace
} // namespace lstm_fastkernels
