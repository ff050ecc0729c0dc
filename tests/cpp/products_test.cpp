// The integer products of every kernel against int64 sums over the caller's own weights, with the
// weights and activations that would make an int16 or int32 sum overflow first.
#include <cmath>

#include "check.h"
#include "kernels.h"
#include "rows.h"
#include "stack.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

constexpr int64_t kRows = 20;
constexpr int64_t kHidden = 9; // two tiles, the second nearly empty

using Pattern = int (*)(int64_t row, int64_t k);

const Pattern kPairSafe[] = {
    [](int64_t, int64_t k) { return k % 2 ? 1 : 127; },
    [](int64_t, int64_t k) { return k % 2 ? -127 : -1; },
    [](int64_t row, int64_t k) { return (row + k) % 2 ? 127 : -127; },
    [](int64_t row, int64_t k) { return static_cast<int>((row * 31 + k * 17) % 129) - 64; },
};
const Pattern kAny[] = {
    [](int64_t, int64_t) { return 127; },
    [](int64_t, int64_t) { return -127; },
    [](int64_t row, int64_t k) { return (row + k / 2) % 2 ? 127 : -127; },
    [](int64_t row, int64_t k) { return static_cast<int>((row * 31 + k * 17) % 255) - 127; },
};

SourceStack patterned_stack(const LstmShape &shape, Pattern pattern) {
  SourceStack stack = random_stack(shape, Weights::any, 1);
  stack.for_each_matrix([&](SourceMatrix &m) {
    for (int64_t i = 0; i < m.rows * m.columns; ++i)
      m.weights[static_cast<size_t>(i)] =
          static_cast<int8_t>(pattern(i / m.columns, i % m.columns));
    m.scales.assign(m.scales.size(), 1.0f);
  });
  stack.layers[0].bias.assign(stack.layers[0].bias.size(), 0.0f);
  return stack;
}

// All +A, all -A, alternating, zeros and random, from row to row.
std::vector<std::vector<int32_t>> extreme_rows(int64_t columns, int32_t most) {
  Random random(2);
  std::vector<std::vector<int32_t>> rows(kRows);
  for (int64_t row = 0; row < kRows; ++row)
    for (int64_t k = 0; k < columns; ++k) {
      const int32_t choices[] = {most,
                                 -most,
                                 k % 2 ? most : -most,
                                 k / 2 % 2 ? -most : most,
                                 0,
                                 static_cast<int32_t>(random.integer(-most, most))};
      rows[static_cast<size_t>(row)].push_back(choices[row % 6]);
    }
  return rows;
}

// Where source row `row` of a gate matrix of `units` units lies in a row of outputs.
int64_t gate_place(int64_t row, int64_t units) {
  const int64_t gate = row / units, unit = row % units;
  return unit / kTileUnits * kTileRows + gate * kTileUnits + unit % kTileUnits;
}

// One row of outputs in tile order, zeros where there is no source row.
std::vector<float> expected_row(const SourceMatrix &source, const Matrix &packed, bool gates,
                                const std::vector<int32_t> &activations) {
  std::vector<float> out(static_cast<size_t>(packed.num_tiles * kTileRows), 0.0f);
  for (int64_t row = 0; row < source.rows; ++row)
    out[static_cast<size_t>(gates ? gate_place(row, source.rows / 4) : row)] =
        static_cast<float>(source.product(row, activations));
  return out;
}

void check_products(const SourceMatrix &source, const Matrix &packed, const uint8_t *bias) {
  const auto values = extreme_rows(source.columns, packed.activation_max);
  std::vector<float> expected;
  for (int64_t rows = 1; rows <= kRows; ++rows) {
    const auto &last = values[static_cast<size_t>(rows - 1)];
    const auto row = expected_row(source, packed, bias != nullptr, last);
    expected.insert(expected.end(), row.begin(), row.end());
    HeldRows x(packed.form, {values.begin(), values.begin() + rows});
    for (Isa isa : supported_isas()) {
      WITH("isa ", isa_name(isa), " rows ", rows);
      std::vector<float> out(expected.size(), 9.0f);
      if (bias)
        kernels(isa).input_products(packed, bias, rows, x.view(), out.data());
      else
        kernels(isa).project(packed, rows, x.view(), out.data());
      CHECK_SAME(out, expected);
    }
  }
}

void check_all_columns(const Pattern (&patterns)[4], Form form) {
  for (int64_t columns : {1, 2, 3, 4, 5, 7, 8, 9, 31, 33, 151})
    for (int p = 0; p < 4; ++p) {
      WITH("form ", static_cast<int>(form), " columns ", columns, " pattern ", p);
      const int bits = form == Form::signed16 ? 16 : 8;
      const SourceStack stack =
          patterned_stack(shape_of(columns, kHidden, 3, 1, 1, bits), patterns[p]);
      const auto memory = stack.packed();
      const PackedLayer layer = PackedStack(memory.data(), memory.size()).layers[0];
      // Below two columns any weights are pair-safe.
      CHECK(layer.ih.form == form || (form == Form::signed8 && (columns == 1 || p == 3)));
      check_products(stack.layers[0].ih, layer.ih, layer.bias);
      check_products(stack.layers[0].hr, layer.hr, nullptr);
    }
}

TEST(products_of_pair_safe_weights_are_exact) { check_all_columns(kPairSafe, Form::offset8); }
TEST(products_of_any_weights_are_exact) { check_all_columns(kAny, Form::signed8); }
TEST(products_of_wide_activations_are_exact) { check_all_columns(kAny, Form::signed16); }

// The largest sums: int16 row sums at their end, int32 sums at theirs.
TEST(products_of_long_rows_are_exact) {
  for (int bits : {8, 16})
    for (int64_t columns : {511, 512, 1031})
      for (const Pattern pattern : {kPairSafe[0], kPairSafe[1], kAny[0], kAny[1]}) {
        WITH("columns ", columns, " bits ", bits);
        const SourceStack stack = patterned_stack(shape_of(columns, 1, 0, 1, 1, bits), pattern);
        const auto memory = stack.packed();
        const PackedLayer layer = PackedStack(memory.data(), memory.size()).layers[0];
        check_products(stack.layers[0].ih, layer.ih, layer.bias);
      }
}

TEST(projections_of_awkward_sizes_are_exact) {
  for (int bits : {8, 16})
    for (int64_t proj : {1, 31, 32, 33, 65}) {
      WITH("proj ", proj, " bits ", bits);
      const SourceStack stack = patterned_stack(shape_of(1, 67, proj, 1, 1, bits), kAny[3]);
      const auto memory = stack.packed();
      const PackedLayer layer = PackedStack(memory.data(), memory.size()).layers[0];
      check_products(stack.layers[0].hr, layer.hr, nullptr);
    }
}

struct Stepped {
  std::vector<float> c, h;
};

Stepped step(Isa isa, const Matrix &hh, HeldRows h_in, const std::vector<float> &gates,
             int64_t rows) {
  const int64_t units = hh.num_tiles * kTileUnits;
  HeldRows h_out(hh.form, rows, units);
  Stepped out{std::vector<float>(static_cast<size_t>(rows * units), 0.0f), {}};
  out.h = out.c;
  kernels(isa).step(hh, step_arguments(hh, rows, h_in, gates, out.c, out.h, h_out));
  return out;
}

// The gates that step must form, handed to a step whose own products are zero, give the same bits.
void check_step(const SourceMatrix &source, const Matrix &hh, int64_t rows) {
  const auto values = extreme_rows(source.columns, hh.activation_max);
  const std::vector<std::vector<int32_t>> taken(values.begin(), values.begin() + rows);
  HeldRows h_in(hh.form, taken);
  const float scale = 1.0f / static_cast<float>(source.columns * hh.activation_max);
  h_in.scales().assign(h_in.scales().size(), scale);
  std::vector<float> gates, sums;
  for (const auto &row : taken) {
    const auto products = expected_row(source, hh, true, row);
    const auto inputs = random_reals(static_cast<int64_t>(products.size()), -1, 1, gates.size());
    for (size_t i = 0; i < products.size(); ++i)
      sums.push_back(std::fma(products[i], scale, inputs[i]));
    gates.insert(gates.end(), inputs.begin(), inputs.end());
  }
  HeldRows zero(hh.form, rows, source.columns);
  for (Isa isa : supported_isas()) {
    WITH("isa ", isa_name(isa), " rows ", rows);
    const Stepped found = step(isa, hh, h_in, gates, rows);
    const Stepped expected = step(isa, hh, zero, sums, rows);
    CHECK_SAME(found.c, expected.c);
    CHECK_SAME(found.h, expected.h);
  }
}

TEST(products_of_a_step_are_exact) {
  for (int bits : {8, 16})
    for (int64_t hidden : {1, 7, 9, 33})
      for (const Pattern pattern : {kPairSafe[0], kPairSafe[2], kAny[0], kAny[3]})
        for (int64_t rows : {1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 17, 20}) {
          WITH("hidden ", hidden, " bits ", bits);
          const SourceStack stack = patterned_stack(shape_of(1, hidden, 0, 1, 1, bits), pattern);
          const auto memory = stack.packed();
          const PackedLayer layer = PackedStack(memory.data(), memory.size()).layers[0];
          check_step(stack.layers[0].hh, layer.hh, rows);
        }
}

} // namespace
} // namespace lstm_fastkernels
