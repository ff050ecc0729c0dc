// The products of 4-bit weights against sums over the caller's own: the same bits, for groups of
// all sizes and short last ones, with the weights and activations of the largest sums.
#include "check.h"
#include "products.h"
#include "stack.h"
#include "support.h"
#include "weights/packed.h"

namespace lstm_fastkernels {
namespace {

// Calls test(stack, its first layer, packed) for stacks of a shape, by pattern and group size.
template <class Test> void for_each_stack(const LstmShape &shape, const Test &test) {
  for (int p = 0; p < 4; ++p)
    for (int64_t group_size : {32, 64, 128}) {
      WITH("pattern ", p, " group size ", group_size);
      SourceStack stack = patterned_stack(TypedShape(shape, kInt4), kInt4Patterns[p]);
      stack.for_each_matrix([&](SourceMatrix &m) {
        m.group_size = group_size;
        m.scales = random_reals(m.rows * m.groups(), 0.01f, 1, 5);
      });
      const auto memory = stack.packed();
      const PackedLayer layer = PackedStack(memory.data(), memory.size()).layers[0];
      CHECK(layer.hh.arithmetic == Arithmetic::int4);
      test(stack.layers[0], layer);
    }
}

TEST(int4_products_have_the_contracts_bits) {
  for (int64_t columns : {1, 2, 3, 5, 8, 31, 32, 33, 63, 64, 65, 100, 127, 129, 151, 260, 1031}) {
    WITH("columns ", columns);
    for_each_stack(shape_of(columns, 9, 3),
                   [](const SourceLayer &source, const PackedLayer &layer) {
                     check_products(source.ih, layer.ih, layer.bias);
                     check_products(source.hr, layer.hr, nullptr);
                   });
  }
}

TEST(int4_steps_have_the_contracts_bits) {
  for (int64_t hidden : {1, 7, 33, 65, 151})
    for (int64_t rows : {1, 2, 3, 5, 6, 7, 12, 13}) {
      WITH("hidden ", hidden, " rows ", rows);
      for_each_stack(shape_of(1, hidden), [&](const SourceLayer &source, const PackedLayer &layer) {
        check_step(source.hh, layer.hh, rows);
      });
    }
}

} // namespace
} // namespace lstm_fastkernels
