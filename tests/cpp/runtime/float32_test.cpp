// float32 weights: against float64, and with numbers at the ends of their range.
#include <cmath>
#include <limits>

#include "check.h"
#include "reference.h"
#include "stack.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

constexpr float kMax = std::numeric_limits<float>::max();

// What numerics.h states for tanh, and what follows for sigmoid; see gates_test.cpp.
constexpr double kTanhError = 3.2e-7;
constexpr double kRounding = 0x1p-25; // of a number up to 1
constexpr double kSigmoidError = kTanhError / 2 + kRounding;

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// A sum in float64, and how far a float32 one by fma may be from it.
struct Sum {
  double value = 0, magnitude = 0;
  int64_t terms = 0;

  void add(double term) {
    value += term;
    magnitude += std::abs(term);
    ++terms;
  }
  void add(const SourceMatrix &m, int64_t row, const float *x) {
    for (int64_t k = 0; k < m.columns; ++k)
      add(double{m.weights[static_cast<size_t>(row * m.columns + k)]} * x[k]);
  }
  // Each term passes at most `terms` roundings, with 1% for their products.
  double error() const { return 1.01 * static_cast<double>(terms) * 0x1p-24 * magnitude; }
};

struct Unit {
  double c, c_error, h, h_error;
};

// One step of a unit. sigmoid's slope is at most 1/4, tanh's at most 1.
Unit unit_of(const SourceLayer &layer, int64_t unit, const float *x, const float *h,
             const float *c) {
  Sum gates[4];
  const int64_t units = layer.hh.rows / 4;
  for (int64_t g = 0; g < 4; ++g) {
    const int64_t row = g * units + unit;
    gates[g].add(layer.bias[static_cast<size_t>(row)]);
    gates[g].add(layer.ih, row, x);
    gates[g].add(layer.hh, row, h);
  }
  const auto sigmoid_error = [&](int g) { return gates[g].error() / 4 + kSigmoidError; };
  const double i = sigmoid(gates[0].value), f = sigmoid(gates[1].value);
  const double g = std::tanh(gates[2].value), o = sigmoid(gates[3].value);
  const double before = std::abs(double{c[unit]});
  Unit out;
  out.c = f * c[unit] + i * g;
  out.c_error = sigmoid_error(1) * before + sigmoid_error(0) + gates[2].error() + kTanhError +
                (before + 2) * 2 * kRounding;
  out.h = o * std::tanh(out.c);
  out.h_error = sigmoid_error(3) + out.c_error + kTanhError + kRounding;
  return out;
}

TEST(floats_are_close_to_doubles) {
  for (int64_t size : {1, 9, 33, 151})
    for (float density : {0.2f, 1.0f}) {
      WITH("size ", size, " density ", density);
      const TypedShape shape = shape_of(size, 152 - size, 0, 1, 1, kFloat32);
      const SourceStack stack = in_blocks(random_stack(shape, Weights::any, 81), {8, 4}, density);
      const auto packed = stack.packed();
      const Sequence s = random_sequence(shape, 1, 5, 82);
      for_each_isa([&](std::string_view) {
        const Result found = forward(packed, s);
        for (int64_t row = 0; row < s.B; ++row)
          for (int64_t unit = 0; unit < shape.hidden_size; ++unit) {
            WITH("row ", row, " unit ", unit);
            const int64_t first = row * shape.hidden_size;
            const Unit expected =
                unit_of(stack.layers[0], unit, s.x.data() + row * shape.input_size,
                        s.h0.data() + first, s.c0.data() + first);
            const auto at = static_cast<size_t>(first + unit);
            CHECK(std::abs(found.c[at] - expected.c) <= expected.c_error);
            CHECK(std::abs(found.h[at] - expected.h) <= expected.h_error);
          }
      });
    }
}

Sequence times(Sequence s, float x, float h0, float c0) {
  for (float &v : s.x)
    v *= x;
  for (float &v : s.h0)
    v *= h0;
  for (float &v : s.c0)
    v *= c0;
  return s;
}

void check_sizes(float weight, float x, float h0, float c0) {
  for (int64_t proj : {0, 10}) {
    WITH("weight ", weight, " x ", x, " h0 ", h0, " c0 ", c0, " proj ", proj);
    const TypedShape shape = shape_of(9, 17, proj, 2, 1, kFloat32);
    SourceStack stack = in_blocks(random_stack(shape, Weights::any, 83), {8, 4}, 0.5f);
    stack.for_each_matrix([&](SourceMatrix &m) {
      for (float &w : m.weights)
        w *= weight;
    });
    const Sequence sequence = times(random_sequence(shape, 3, 5, 84), x, h0, c0);
    const Result expected = reference_forward(stack, sequence);
    const auto packed = stack.packed(), dense = as_dense(stack).packed();
    for_each_isa([&](std::string_view) {
      check_same(forward(packed, sequence), expected);
      check_same(forward(dense, sequence), expected);
    });
  }
}

TEST(floats_are_not_scaled_to_their_row) {
  for (float h0 : {1e-20f, 1.0f, 5.0f, 1e4f})
    check_sizes(1, 1, h0, 1);
  for (float x : {1e-35f, 1e-20f, 1e10f})
    check_sizes(1, x, 1, 1);
}

TEST(huge_floats_equal_the_reference) {
  check_sizes(1, 1e30f, 1e30f, 1e30f);
  check_sizes(1e30f, 1, 1, 1);
  check_sizes(1e30f, 1e30f, 1, 1); // sums overflow, to infinities and to NaN
  check_sizes(1e38f, 1e38f, 1e38f, 1e38f);
}

TEST(denormal_floats_equal_the_reference) {
  check_sizes(1, 1e-40f, 1e-40f, 1e-40f);
  check_sizes(1e-40f, 1, 1, 1);
  check_sizes(1e-40f, 1e-40f, 1e-40f, 1e-40f);
}

// With one weight, o open and c0 large, what is multiplied is seen in the projection.
TEST(products_at_the_ends_of_the_range_are_right) {
  const TypedShape shape = shape_of(1, 2, 1, 1, 1, kFloat32);
  SourceStack stack = random_stack(shape, Weights::any, 85);
  stack.for_each_matrix([](SourceMatrix &m) { m.weights.assign(m.weights.size(), 0.0f); });
  stack.layers[0].bias = {0, 0, 100, 100, 0, 0, 100, 100}; // f and o are 1, h is tanh(c0)
  for (float weight : {1e-40f, 1.0f, 1e30f, kMax, -kMax}) {
    WITH("weight ", weight);
    stack.layers[0].hr.weights = {weight, 0};
    const auto packed = stack.packed();
    Sequence s = random_sequence(shape, 1, 1, 86);
    s.c0 = {100, -100};
    for_each_isa(
        [&](std::string_view) { CHECK(forward(packed, s).y == std::vector<float>{weight}); });
  }
}

} // namespace
} // namespace lstm_fastkernels
