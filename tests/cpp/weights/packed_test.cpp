// The packed form: its size, what it says of itself, and which form a matrix gets.
#include <algorithm>

#include "check.h"
#include "stack.h"
#include "support.h"
#include "weights/packed.h"

namespace lstm_fastkernels {
namespace {

TEST(packed_shape_comes_back) {
  for (int64_t size : kAwkward)
    for (int64_t proj : {int64_t{0}, size - 1})
      for (int64_t directions : {1, 2})
        for (Precision precision : kPrecisions) {
          WITH("size ", size, " proj ", proj, " directions ", directions, " precision ",
               precision_name(precision));
          const TypedShape shape = shape_of(152 - size, size, proj, 2, directions, precision);
          const auto packed = random_stack(shape, Weights::any, 1).packed();
          CHECK(packed_shape(packed.data(), packed.size()) == shape);
        }
}

int64_t weights_of(const LstmShape &shape) {
  int64_t count = 0;
  for (int64_t layer = 0; layer < shape.num_layers; ++layer)
    count += shape.num_directions *
             (4 * shape.hidden_size * (shape.layer_input_size(layer) + shape.output_size()) +
              shape.proj_size * shape.hidden_size);
  return count;
}

TEST(packed_weights_take_hardly_more_than_a_byte) {
  for (Precision precision : {kInt8, kInt16})
    for (const TypedShape &shape :
         {shape_of(256, 256, 0, 1, 1, precision), shape_of(128, 256, 0, 3, 1, precision),
          shape_of(512, 512, 0, 2, 2, precision), shape_of(512, 1024, 256, 2, 1, precision)}) {
      WITH("input ", shape.input_size, " hidden ", shape.hidden_size, " precision ",
           precision_name(precision));
      const auto packed = random_stack(shape, Weights::any, 6).packed();
      CHECK(static_cast<double>(packed.size()) <= 1.05 * static_cast<double>(weights_of(shape)));
    }
}

// Calls test(stack) with each kind of weights, dense and in blocks.
template <class Test> void for_each_kind(const Test &test) {
  for (Precision precision : kPrecisions) {
    WITH("precision ", precision_name(precision));
    const SourceStack stack = random_stack(shape_of(9, 33, 8, 2, 2, precision), Weights::any, 3);
    test(stack);
    WITH("in blocks");
    test(in_blocks(stack, {8, 4}, 0.5f));
  }
}

TEST(pack_writes_every_byte) {
  for_each_kind([](const SourceStack &stack) {
    const HeldStack held = stack.held();
    const auto layers = held.views();
    const PackPlan plan(stack.shape, layers.data());
    std::vector<uint8_t> zeros(plan.bytes()), ones(plan.bytes(), 0xff);
    plan.write(zeros.data(), zeros.size());
    plan.write(ones.data(), ones.size());
    CHECK(zeros == ones);
  });
}

TEST(pack_takes_exactly_the_bytes_it_needs) {
  for_each_kind([](const SourceStack &stack) {
    const HeldStack held = stack.held();
    const auto layers = held.views();
    const PackPlan plan(stack.shape, layers.data());
    const size_t needed = plan.bytes();
    for (size_t bytes : {size_t{1}, size_t{64}, needed / 2, needed - 64, needed - 1, needed + 1}) {
      WITH("bytes ", bytes);
      std::vector<uint8_t> room(bytes);
      CHECK_THROWS(plan.write(room.data(), bytes), "the packed form takes");
    }
  });
}

TEST(packed_weights_run_at_any_address) {
  for_each_kind([](const SourceStack &stack) {
    const auto packed = stack.packed();
    const Sequence sequence = random_sequence(stack.shape, 3, 5, 4);
    for_each_isa([&](std::string_view) {
      const Result expected = forward(packed, sequence);
      for (size_t offset : {1u, 2u, 3u, 4u, 31u}) {
        WITH("offset ", offset);
        std::vector<uint8_t> shifted(packed.size() + offset);
        std::copy(packed.begin(), packed.end(), shifted.begin() + static_cast<long>(offset));
        Result result;
        const LstmArguments a = arguments_for(sequence, result);
        lstm_forward(shifted.data() + offset, packed.size(), a);
        CHECK_SAME(result.y, expected.y);
        CHECK_SAME(result.c, expected.c);
      }
    });
  });
}

// The first matrix of a stack whose weight_ih has this row four times.
Matrix packed_row(const std::vector<int> &row, Precision precision, std::vector<uint8_t> &memory) {
  SourceStack stack = random_stack(
      shape_of(static_cast<int64_t>(row.size()), 1, 0, 1, 1, precision), Weights::any, 5);
  std::vector<float> &weights = stack.layers[0].ih.weights;
  for (size_t i = 0; i < weights.size(); ++i)
    weights[i] = static_cast<float>(row[i % row.size()]);
  memory = stack.packed();
  return PackedStack(memory.data(), memory.size()).layers[0].ih;
}

Arithmetic arithmetic_of(const std::vector<int> &row) {
  std::vector<uint8_t> memory;
  const Matrix matrix = packed_row(row, kInt8, memory);
  CHECK(matrix.activation_max == 255);
  return matrix.arithmetic;
}

TEST(arithmetic_is_proven_by_pairs) {
  CHECK(arithmetic_of({64, 64, -64, -64, 127}) == Arithmetic::pairs8);
  CHECK(arithmetic_of({127, 1, -127, -1, 127, -127}) == Arithmetic::pairs8);
  CHECK(arithmetic_of({0, 127, 2, 0}) == Arithmetic::pairs8); // neighbours, but of two pairs
  CHECK(arithmetic_of({-128, 0, -128, 127, -128}) == Arithmetic::pairs8);
  CHECK(arithmetic_of({127, 2}) == Arithmetic::any8);
  CHECK(arithmetic_of({-127, -2}) == Arithmetic::any8);
  CHECK(arithmetic_of({-1, -128}) == Arithmetic::any8);
  CHECK(arithmetic_of({0, 0, 0, 127, 0, 0, 127, 127}) == Arithmetic::any8);
}

TEST(row_sums_are_as_wide_as_the_weights_need) {
  const auto is_wide = [](const std::vector<int> &row) {
    std::vector<uint8_t> memory;
    const Matrix matrix = packed_row(row, kInt8, memory);
    CHECK(matrix.arithmetic == Arithmetic::pairs8);
    return matrix.wide_row_sums;
  };
  std::vector<int> row;
  for (int k = 0; k < 510; k += 2)
    row.insert(row.end(), {127, 1});
  row.push_back(127);
  CHECK(!is_wide(row)); // 32767
  row.push_back(1);
  CHECK(is_wide(row)); // 32768
  for (int &weight : row)
    weight = -weight;
  CHECK(!is_wide(row)); // -32768
  row.push_back(-1);
  CHECK(is_wide(row)); // -32769
}

TEST(activation_max_keeps_sums_within_int32) {
  for (int64_t columns : {1, 2, 3, 151, 515, 516, 517, 1040, 4000})
    for (int weight : {0, 1, -64, 127, -128}) {
      WITH("columns ", columns, " weight ", weight);
      std::vector<uint8_t> memory;
      const Matrix matrix =
          packed_row(std::vector<int>(static_cast<size_t>(columns), weight), kInt16, memory);
      const int64_t most = std::max<int64_t>(1, columns * std::abs(weight));
      CHECK(matrix.arithmetic == Arithmetic::signed16);
      CHECK(matrix.activation_max == std::min<int64_t>(32767, 0x7fffffff / most));
    }
}

} // namespace
} // namespace lstm_fastkernels
