// Low-rank matrices: V's products, quantized, times U; the same bits as the contract in plain
// loops.
#include <limits>

#include "check.h"
#include "reference.h"
#include "stack.h"
#include "support.h"
#include "weights/packed.h"

namespace lstm_fastkernels {
namespace {

void check_by_contract(const SourceStack &stack, const Sequence &sequence,
                       const std::vector<int64_t> &lengths = {}) {
  const Result expected = reference_forward(stack, sequence, lengths);
  const auto packed = stack.packed();
  for_each_isa([&](std::string_view) {
    check_same(forward(packed, sequence, 1, lengths), expected);
    check_same(forward(packed, sequence, 3, lengths), expected);
  });
}

TEST(low_rank_stacks_have_the_contracts_bits) {
  for (Precision precision : kPrecisions)
    for (int64_t hidden : {1, 9, 33, 70})
      for (int64_t layers : {1, 2})
        for (int64_t directions : {1, 2})
          for (int64_t proj : {int64_t{0}, hidden / 2}) {
            WITH("precision ", precision_name(precision), " hidden ", hidden, " layers ", layers,
                 " directions ", directions, " proj ", proj);
            const TypedShape shape = shape_of(37, hidden, proj, layers, directions, precision);
            const SourceStack stack = in_factors(random_stack(shape, Weights::any, 7), 8);
            check_by_contract(stack, random_sequence(shape, 3, 5, 9), random_lengths(3, 5, 10));
          }
}

TEST(low_rank_matrices_mix_with_others) {
  for (uint64_t seed = 0; seed < 12; ++seed) {
    WITH("seed ", seed);
    const LstmShape shape = shape_of(21, 19, seed % 2 ? 11 : 0, 2, 2);
    const SourceStack stack = in_factors(in_mixed_blocks(mixed_stack(shape, seed), seed), seed);
    check_by_contract(stack, random_sequence(shape, 4, 3, seed));
  }
}

TEST(values_that_are_not_finite_go_through_both_factors) {
  const TypedShape shape = shape_of(9, 8);
  const SourceStack stack = in_factors(random_stack(shape, Weights::any, 11), 12);
  Sequence sequence = random_sequence(shape, 4, 2, 13);
  sequence.x[9 * 2 + 3] = std::numeric_limits<float>::infinity(); // of row 0, step 1
  check_by_contract(stack, sequence);
}

void check_refused(HeldStack held, void (*change)(WeightMatrix &u, WeightMatrix &v),
                   const std::string &part) {
  auto cells = held.views();
  WeightMatrix v = *cells[0].hh.v;
  cells[0].hh.v = &v;
  change(cells[0].hh, v);
  CHECK_THROWS(PackPlan(held.shape, cells.data()), part);
}

TEST(factors_that_do_not_fit_are_refused) {
  const SourceStack stack = in_factors(random_stack(shape_of(5, 9), Weights::any, 14), 16);
  CHECK(!stack.layers[0].hh.v.empty());
  const HeldStack held = stack.held();
  const std::string name = "weight_hh_l0: ";
  check_refused(
      held, [](WeightMatrix &u, WeightMatrix &) { u.v = nullptr; },
      name + "a low-rank matrix has a rank and a factor V");
  check_refused(
      held, [](WeightMatrix &u, WeightMatrix &) { u.rank = 0; },
      name + "a low-rank matrix has a rank and a factor V");
  for (int64_t rank : {int64_t{-1}, int64_t{65536}, int64_t{1} << 40}) {
    WITH("rank ", rank);
    auto cells = held.views();
    cells[0].hh.rank = rank;
    CHECK_THROWS(PackPlan(held.shape, cells.data()), name + "the rank of factors must be in");
  }
  check_refused(
      held, [](WeightMatrix &, WeightMatrix &v) { v.precision = kInt16; },
      name + "the factor V must be a plain matrix of U's precision");
  check_refused(
      held, [](WeightMatrix &, WeightMatrix &v) { v.rank = 1; },
      name + "the factor V must be a plain matrix of U's precision");
}

} // namespace
} // namespace lstm_fastkernels
