// The CUDA path on the emulator gives the bits of the CPU's kernels.
#include <limits>

#include "check.h"
#include "on_device.h"
#include "orders.h"
#include "stack.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

template <class Test> void for_each_shape(int64_t input, int64_t hidden, const Test &test) {
  for (int64_t layers : {1, 3})
    for (int64_t directions : {1, 2})
      for (int64_t proj : {int64_t{0}, (hidden + 1) / 2})
        for (Precision precision : kPrecisions) {
          if (proj == hidden)
            continue;
          WITH("input ", input, " hidden ", hidden, " layers ", layers, " directions ", directions,
               " proj ", proj, " precision ", precision_name(precision));
          test(shape_of(input, hidden, proj, layers, directions, precision));
        }
}

void check_as_on_cpu(const SourceStack &stack, const Sequence &sequence,
                     const std::vector<int64_t> &lengths = {}) {
  check_same(forward(StackOnDevice(stack), sequence, lengths),
             forward(stack.packed(), sequence, 1, lengths));
}

TEST(every_shape) {
  for_each_shape(7, 19, [](const TypedShape &shape) {
    const SourceStack stack = random_stack(shape, Weights::any, 31);
    const Sequence sequence = random_sequence(shape, 3, 5, 32);
    for_each_order([&] { check_as_on_cpu(stack, sequence); });
  });
}

TEST(low_rank_matrices) {
  uint64_t seed = 35;
  for_each_shape(7, 19, [&](const TypedShape &shape) {
    const SourceStack stack = in_factors(random_stack(shape, Weights::any, 36), ++seed);
    for (int64_t B : {1, 9}) {
      WITH("seed ", seed, " batch ", B);
      check_as_on_cpu(stack, random_sequence(shape, 3, B, 37), random_lengths(3, B, 38));
      check_as_on_cpu(stack, random_sequence(shape, 1, B, 39));
    }
  });
  const LstmShape shape = shape_of(21, 35, 0, 2, 2);
  for (seed = 1; seed < 6; ++seed) {
    WITH("mixed, seed ", seed);
    const SourceStack stack = in_factors(in_mixed_blocks(mixed_stack(shape, seed), seed), seed);
    check_as_on_cpu(stack, random_sequence(shape, 3, 5, seed));
  }
}

TEST(groups_of_4_bit_weights) {
  for (int64_t input : {31, 33, 64, 129, 300})
    for (int64_t B : {1, 8, 40}) {
      WITH("input ", input, " batch ", B);
      const TypedShape shape = shape_of(input, 70, 0, 1, 1, kInt4);
      check_as_on_cpu(random_stack(shape, Weights::any, static_cast<uint64_t>(input)),
                      random_sequence(shape, 2, B, 40));
    }
}

TEST(one_step) {
  for_each_shape(21, 35, [](const TypedShape &shape) {
    const SourceStack stack = random_stack(shape, Weights::any, 33);
    for (int64_t B : {1, 5, 8, 17}) {
      WITH("batch ", B);
      Sequence sequence = random_sequence(shape, 1, B, 34);
      for_each_order([&] { check_as_on_cpu(stack, sequence); });
      check_as_on_cpu(stack, sequence, std::vector<int64_t>(static_cast<size_t>(B), 1));
      sequence.c0.back() = std::numeric_limits<float>::infinity();
      sequence.x.front() = std::numeric_limits<float>::quiet_NaN();
      check_as_on_cpu(stack, sequence);
    }
  });
}

TEST(awkward_sizes) {
  for (int64_t input : kAwkward)
    for (int64_t hidden : {1, 16, 17, 33, 151})
      for (Precision precision : kPrecisions) {
        WITH("input ", input, " hidden ", hidden, " precision ", precision_name(precision));
        const TypedShape shape = shape_of(input, hidden, 0, 1, 1, precision);
        const auto seed = static_cast<uint64_t>(input * 1000 + hidden);
        check_as_on_cpu(random_stack(shape, Weights::any, seed),
                        random_sequence(shape, 2, 2, seed));
      }
}

TEST(batches) {
  for (int64_t B : {1, 7, 8, 9, 32, 33, 65, 70})
    for (int64_t proj : {0, 3})
      for (Precision precision : kPrecisions) {
        WITH("batch ", B, " proj ", proj, " precision ", precision_name(precision));
        const TypedShape shape = shape_of(5, 17, proj, 1, 2, precision);
        check_as_on_cpu(random_stack(shape, Weights::any, 41), random_sequence(shape, 2, B, 42));
      }
}

TEST(rows_of_other_lengths) {
  const std::vector<int64_t> all_lengths[] = {
      {6, 1, 3, 6, 2, 1, 1, 4, 5}, {1, 1, 1, 1, 1, 1, 1, 1, 1}, {4, 5, 4, 1, 3, 2, 4, 5, 4}};
  for_each_shape(7, 9, [&](const TypedShape &shape) {
    const SourceStack stack = random_stack(shape, Weights::any, 21);
    const Sequence sequence = random_sequence(shape, 6, 9, 22);
    for (const auto &lengths : all_lengths) {
      WITH("lengths from ", lengths[0], ", ", lengths[1]);
      for_each_order([&] { check_as_on_cpu(stack, sequence, lengths); });
    }
  });
}

TEST(sequences_longer_than_a_chunk) {
  const std::vector<int64_t> lengths = {20, 3, 17, 20, 9};
  for_each_shape(3, 9, [&](const TypedShape &shape) {
    const SourceStack stack = random_stack(shape, Weights::any, 51);
    const StackOnDevice on_device(stack);
    const Sequence sequence = random_sequence(shape, 20, 5, 52);
    for (int64_t rows : {1, 12, 30})
      for (bool with_lengths : {false, true}) {
        WITH("rows a chunk ", rows, " lengths ", with_lengths);
        Result found;
        LstmArguments a = arguments_for(sequence, found);
        if (with_lengths)
          a.lengths = lengths.data();
        cuda::Plan plan;
        plan.chunk_rows = rows;
        on_device.forward(a, plan);
        check_same(found, forward(stack.packed(), sequence, 1,
                                  with_lengths ? lengths : std::vector<int64_t>{}));
      }
  });
}

// What kernels read; records say in which blocks a matrix was given.
std::vector<uint8_t> behind_records(const SourceStack &stack) {
  const std::vector<uint8_t> packed = StackOnDevice(stack).packed();
  return {packed.begin() + static_cast<std::ptrdiff_t>(cuda::header_bytes(stack.shape)),
          packed.end()};
}

TEST(blocks_of_zeros_are_skipped) {
  for_each_shape(70, 40, [](const TypedShape &shape) {
    if (shape.precision == kInt4)
      return; // bands have all of their fragments
    const SourceStack dense = random_stack(shape, Weights::any, 61);
    const Sequence sequence = random_sequence(shape, 3, 4, 62);
    size_t bytes = StackOnDevice(dense).packed().size();
    for (BlockShape block : {BlockShape{16, 32}, BlockShape{8, 4}, BlockShape{24, 8}}) {
      WITH("blocks ", block.rows, " x ", block.columns);
      const SourceStack stack = in_blocks(dense, block, 0.3f);
      check_as_on_cpu(stack, sequence);
      check_as_on_cpu(in_mixed_blocks(stack, 63), sequence);
      CHECK(behind_records(stack) == behind_records(as_dense(stack)));
      if (block.rows == 16)
        CHECK(StackOnDevice(stack).packed().size() < bytes);
    }
  });
}

TEST(without_weights) {
  for_each_shape(40, 20, [](const TypedShape &shape) {
    SourceStack stack = random_stack(shape, Weights::any, 71);
    stack.for_each_matrix(
        [](SourceMatrix &m) { std::fill(m.weights.begin(), m.weights.end(), 0.0f); });
    check_as_on_cpu(stack, random_sequence(shape, 2, 3, 72));
  });
}

TEST(extreme_weights) {
  for (Precision precision : {kInt8, kInt16}) {
    const TypedShape shape = shape_of(300, 150, 70, 2, 2, precision);
    SourceStack stack = random_stack(shape, Weights::any, 73);
    stack.for_each_matrix([](SourceMatrix &m) {
      for (size_t i = 0; i < m.weights.size(); ++i)
        m.weights[i] = i / static_cast<size_t>(m.columns) % 2 ? 127.0f : -128.0f;
    });
    Sequence sequence = random_sequence(shape, 2, 3, 74);
    std::fill(sequence.x.begin(), sequence.x.end(), 3.0f);
    WITH("precision ", precision_name(precision));
    check_as_on_cpu(stack, sequence);
  }
}

// Inputs and states of one sign, of one value, of next to nothing, and far from zero.
TEST(extreme_zero_points) {
  for (int64_t proj : {0, 20}) {
    const TypedShape shape = shape_of(40, 50, proj, 2);
    SourceStack stack = random_stack(shape, Weights::any, 77);
    stack.for_each_matrix([](SourceMatrix &m) {
      for (size_t i = 0; i < m.weights.size(); i += 7)
        m.weights[i] = -128.0f;
    });
    for (int64_t T : {1, 4})
      for (const auto &[lo, hi] : {std::pair(-2.0f, -1.0f),
                                   {1.0f, 2.0f},
                                   {0.0f, 0.0f},
                                   {-0.5f, -0.5f},
                                   {0.9999f, 1000.0f},
                                   {-1e30f, 1e-30f}}) {
        WITH("proj ", proj, " T ", T, " from ", lo, " to ", hi);
        Sequence sequence = random_sequence(shape, T, 5, 78);
        sequence.x = random_reals(T * 5 * 40, lo, hi, 79);
        sequence.h0 = random_reals(static_cast<int64_t>(sequence.h0.size()), lo, hi, 80);
        check_as_on_cpu(stack, sequence);
      }
  }
}

// Launches are shared by matrices of one precision alone.
TEST(a_precision_for_each_matrix) {
  const std::vector<int64_t> lengths = {4, 1, 3, 2, 4};
  for (uint64_t seed = 0; seed < 12; ++seed)
    for (int64_t directions : {1, 2})
      for (int64_t proj : {0, 9}) {
        WITH("seed ", seed, " directions ", directions, " proj ", proj);
        const TypedShape shape = shape_of(35, 17, proj, 3, directions);
        const SourceStack stack = in_mixed_blocks(mixed_stack(shape, seed), seed);
        check_as_on_cpu(stack, random_sequence(shape, 4, 5, seed), lengths);
        check_as_on_cpu(stack, random_sequence(shape, 1, 5, seed));
      }
}

// Each matrix has a largest 16-bit activation of its own.
TEST(sums_as_large_as_int32) {
  for (int64_t proj : {0, 3})
    for (int64_t T : {1, 2}) {
      const TypedShape shape = shape_of(600, proj ? 540 : 20, proj, 1, 1, kInt16);
      SourceStack stack = random_stack(shape, Weights::any, 75);
      stack.for_each_matrix(
          [](SourceMatrix &m) { std::fill(m.weights.begin(), m.weights.end(), 127.0f); });
      WITH("proj ", proj, " T ", T);
      check_as_on_cpu(stack, random_sequence(shape, T, 2, 76));
    }
}

TEST(non_finite_values_stay_in_their_row) {
  const float kInf = std::numeric_limits<float>::infinity();
  const float kNan = std::numeric_limits<float>::quiet_NaN();
  for_each_shape(6, 10, [&](const TypedShape &shape) {
    const SourceStack stack = random_stack(shape, Weights::any, 81);
    for (float bad : {kNan, -kInf})
      for (int where : {0, 1, 2}) {
        Sequence sequence = random_sequence(shape, 5, 4, 82);
        const size_t row = 2;
        if (where == 0)
          sequence.x[(2 * 4 + row) * 6 + 3] = bad;
        else if (where == 1)
          sequence.h0[row * static_cast<size_t>(shape.output_size())] = bad;
        else
          sequence.c0[row * 10 + 9] = bad;
        WITH("value ", bad, " in ", where);
        for_each_order([&] { check_as_on_cpu(stack, sequence, {2, 5, 4, 1}); });
        check_as_on_cpu(stack, sequence);
        check_as_on_cpu(stack, sequence, {3, 1, 5, 5});
      }
  });
}

// Input products that overflow make gates infinite.
TEST(sums_that_overflow) {
  for (int64_t proj : {0, 4})
    for (Precision precision : {kInt8, kInt16}) {
      const TypedShape shape = shape_of(4, 24, proj, 2, 1, precision);
      SourceStack stack = random_stack(shape, Weights::any, 83);
      for (float &scale : stack.layers[0].ih.scales)
        scale = 3e38f;
      for (float &scale : stack.layers[0].hh.scales)
        scale = 3e38f;
      WITH("proj ", proj, " precision ", precision_name(precision));
      const Sequence sequence = random_sequence(shape, 6, 3, 84);
      for_each_order([&] { check_as_on_cpu(stack, sequence); });
    }
}

} // namespace
} // namespace lstm_fastkernels
