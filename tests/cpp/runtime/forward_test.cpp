// lstm_forward against the reference, and against itself however a call is cut.
#include "check.h"
#include "reference.h"
#include "stack.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

// Calls test(stack) with each kind of weights, dense and in blocks of several shapes.
template <class Test> void for_each_kind(TypedShape shape, const Test &test) {
  for (Precision precision : kPrecisions)
    for (Weights weights : {Weights::pair_safe, Weights::any}) {
      if (precision == kFloat32 && weights == Weights::any)
        continue; // the same weights
      WITH("precision ", precision_name(precision), " pair-safe ", weights == Weights::pair_safe);
      shape.precision = precision;
      const SourceStack stack = random_stack(shape, weights, 11);
      test(stack);
      WITH("in blocks");
      test(in_mixed_blocks(stack, static_cast<uint64_t>(shape.num_layers)));
    }
}

template <class Test> void for_each_stack(int64_t input, int64_t hidden, const Test &test) {
  for (int64_t layers : {1, 3})
    for (int64_t directions : {1, 2})
      for (int64_t proj : {int64_t{0}, hidden / 2}) {
        WITH("input ", input, " hidden ", hidden, " proj ", proj, " layers ", layers,
             " directions ", directions);
        for_each_kind(shape_of(input, hidden, proj, layers, directions), test);
      }
}

void check_reference(const SourceStack &stack, int64_t T, int64_t B) {
  const auto packed = stack.packed();
  const Sequence sequence = random_sequence(stack.shape, T, B, 12);
  const Result expected = reference_forward(stack, sequence);
  for_each_isa([&](std::string_view) { check_same(forward(packed, sequence), expected); });
}

TEST(forward_equals_the_reference) {
  for_each_stack(7, 9, [](const SourceStack &stack) { check_reference(stack, 5, 3); });
}

TEST(forward_of_awkward_sizes_equals_the_reference) {
  for (int64_t input : kAwkward)
    for (int64_t hidden : {int64_t{1}, int64_t{8}, int64_t{33}, 152 - input}) {
      WITH("input ", input, " hidden ", hidden);
      check_reference(random_stack(shape_of(input, hidden), Weights::any, 13), 2, 2);
    }
  for (int64_t hidden : {2, 7, 8, 31, 33, 67}) {
    WITH("hidden ", hidden);
    const TypedShape shape = shape_of(3, hidden, hidden - 1, 2, 1, kInt16);
    check_reference(random_stack(shape, Weights::any, 14), 3, 2);
  }
}

// More than 1 MB: every other step takes the tiles from the last one on, and every other call of
// one step, too.
TEST(forward_of_large_matrices_equals_the_reference) {
  const SourceStack stack = random_stack(shape_of(3, 521), Weights::any, 15);
  for (int64_t rows : {1, 2, 9})
    for (int64_t steps : {3, 1, 1}) {
      WITH("rows ", rows, " steps ", steps);
      check_reference(stack, steps, rows);
    }
}

TEST(forward_of_any_batch_equals_its_rows) {
  for_each_stack(7, 9, [](const SourceStack &stack) {
    const auto packed = stack.packed();
    for (int64_t B : {2, 3, 9, 20}) {
      WITH("batch ", B);
      const Sequence sequence = random_sequence(stack.shape, 3, B, 15);
      for_each_isa([&](std::string_view) {
        const Result all = forward(packed, sequence);
        for (int64_t row = 0; row < B; ++row)
          check_same(all.row(sequence, row, 3), forward(packed, sequence.row(row, 3)));
      });
    }
  });
}

// Long enough for several of the core's own chunks.
TEST(forward_in_pieces_equals_the_whole) {
  for_each_stack(3, 9, [](const SourceStack &stack) {
    if (stack.shape.num_directions == 2)
      return;
    const auto packed = stack.packed();
    for (int64_t B : {1, 5}) {
      WITH("batch ", B);
      const Sequence sequence = random_sequence(stack.shape, 120, B, 16);
      const Result whole = forward(packed, sequence);
      for_each_isa([&](std::string_view) {
        Result joined{{}, sequence.h0, sequence.c0};
        const int64_t cuts[] = {0, 1, 2, 40, 119, 120};
        for (int i = 0; i < 5; ++i) {
          Sequence piece = sequence.steps(cuts[i], cuts[i + 1]);
          piece.h0 = joined.h;
          piece.c0 = joined.c;
          const Result next = forward(packed, piece);
          joined.y.insert(joined.y.end(), next.y.begin(), next.y.end());
          joined.h = next.h;
          joined.c = next.c;
        }
        check_same(joined, whole);
      });
    }
  });
}

TEST(each_matrix_has_a_precision_of_its_own) {
  for (int64_t proj : {0, 7})
    for (int64_t directions : {1, 2})
      for (uint64_t seed = 0; seed < 8; ++seed) {
        WITH("proj ", proj, " directions ", directions, " seed ", seed);
        const SourceStack stack = mixed_stack(shape_of(9, 17, proj, 2, directions), seed);
        const Sequence sequence = random_sequence(stack.shape, 3, 5, seed);
        const Result expected = reference_forward(stack, sequence);
        for_each_isa([&](std::string_view) {
          check_same(forward(stack.packed(), sequence), expected);
          check_same(forward(in_mixed_blocks(stack, seed).packed(), sequence),
                     reference_forward(in_mixed_blocks(stack, seed), sequence));
        });
      }
}

// More products than the core has one thread do; rows past their lengths count among them.
constexpr int64_t kProductsForThreads = int64_t{1} << 26;

void check_threads(const TypedShape &shape, int64_t B) {
  WITH("directions ", shape.num_directions, " layers ", shape.num_layers, " batch ", B);
  const auto packed = random_stack(shape, Weights::pair_safe, 17).packed();
  const auto weights = static_cast<int64_t>(packed.size()) * 3 / 4;
  const Sequence sequence = random_sequence(shape, 1 + kProductsForThreads / (weights * B), B, 18);
  std::vector<int64_t> lengths;
  for (int64_t row = 0; row < B; ++row)
    lengths.push_back(1 + row * 5 % 16);
  const Result expected = forward(packed, sequence, 1, lengths);
  for_each_isa([&](std::string_view) {
    for (int threads : {0, 2, 5}) {
      WITH("threads ", threads);
      check_same(forward(packed, sequence, threads, lengths), expected);
    }
  });
}

TEST(forward_does_not_depend_on_threads) {
  for (int64_t directions : {1, 2})
    for (int64_t proj : {0, 9})
      for (int64_t B : {1, 7, 13})
        check_threads(shape_of(33, 33, proj, 2, directions), B);
}

// 36 million products and more; blocks that are left out count for none.
void check_threads_of_full_rows(const SourceStack &stack, int64_t T) {
  const auto packed = stack.packed();
  const Sequence sequence = random_sequence(stack.shape, T, 9, 20);
  const Result expected = forward(packed, sequence, 1);
  for_each_isa([&](std::string_view) { check_same(forward(packed, sequence, 3), expected); });
}

TEST(forward_of_full_rows_does_not_depend_on_threads) {
  for (int64_t directions : {1, 2}) {
    WITH("directions ", directions);
    check_threads_of_full_rows(
        random_stack(shape_of(129, 129, 0, 1, directions), Weights::pair_safe, 19), 30);
  }
  const SourceStack floats = random_stack(shape_of(129, 129, 0, 1, 1, kFloat32), Weights::any, 19);
  check_threads_of_full_rows(in_blocks(floats, {8, 4}, 0.8f), 40);
}

TEST(absent_state_is_zeros) {
  for_each_stack(3, 9, [](const SourceStack &stack) {
    const auto packed = stack.packed();
    Sequence sequence = random_sequence(stack.shape, 3, 2, 19);
    sequence.h0.assign(sequence.h0.size(), 0.0f);
    sequence.c0.assign(sequence.c0.size(), 0.0f);
    for_each_isa([&](std::string_view) {
      Result absent;
      LstmArguments a = arguments_for(sequence, absent);
      a.h0 = a.c0 = nullptr;
      lstm_forward(packed.data(), packed.size(), a);
      check_same(absent, forward(packed, sequence));
    });
  });
}

} // namespace
} // namespace lstm_fastkernels
