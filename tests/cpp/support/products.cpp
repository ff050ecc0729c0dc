#include "products.h"

#include <cmath>

#include "check.h"
#include "kernels/implementations.h"
#include "rows.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

constexpr int64_t kRows = 20;

// Activations less their zero points.
struct Activations {
  std::vector<std::vector<int32_t>> values;
  std::vector<int32_t> zero_points;

  Activations first(int64_t rows) const {
    return {{values.begin(), values.begin() + rows},
            {zero_points.begin(), zero_points.begin() + rows}};
  }
};

// All the largest, all the smallest, alternating, zeros and random, from row to row.
Activations extreme_rows(int64_t count, int64_t columns, const Matrix &matrix) {
  Random random(2);
  Activations rows{std::vector<std::vector<int32_t>>(static_cast<size_t>(count)),
                   std::vector<int32_t>(static_cast<size_t>(count))};
  const bool shifted = has_zero_points(matrix.arithmetic);
  for (int64_t row = 0; row < count; ++row) {
    const auto at = static_cast<size_t>(row);
    const int32_t zero_points[] = {0, 255, 128, static_cast<int32_t>(random.integer(0, 255))};
    rows.zero_points[at] = shifted ? zero_points[row % 4] : 0;
    const int32_t most = matrix.activation_max - rows.zero_points[at];
    const int32_t least = shifted ? -rows.zero_points[at] : -most;
    for (int64_t k = 0; k < columns; ++k) {
      const int32_t choices[] = {most,
                                 least,
                                 k % 2 ? most : least,
                                 k / 2 % 2 ? least : most,
                                 0,
                                 static_cast<int32_t>(random.integer(least, most))};
      rows.values[at].push_back(choices[(row + row / 4) % 6]);
    }
  }
  return rows;
}

// Where source row `row` of a gate matrix of `units` units lies in a row of outputs.
int64_t gate_place(int64_t row, int64_t units) {
  const int64_t gate = row / units, unit = row % units;
  return unit / kTileUnits * kTileRows + gate * kTileUnits + unit % kTileUnits;
}

// One row of outputs in tile order, zeros where there is no source row.
std::vector<float> expected_row(const SourceMatrix &source, const Matrix &packed,
                                std::vector<int32_t> activations, int32_t zero_point) {
  if (source.is_int4())
    for (int32_t &activation : activations)
      activation += zero_point;
  std::vector<float> out(static_cast<size_t>(packed.num_tiles * kTileRows), 0.0f);
  for (int64_t row = 0; row < source.rows; ++row)
    out[static_cast<size_t>(source.gates == 4 ? gate_place(row, source.rows / 4) : row)] =
        source.is_int4() ? source.int4_product(row, activations, zero_point)
                         : static_cast<float>(source.product(row, activations));
  return out;
}

} // namespace

SourceStack patterned_stack(const TypedShape &shape, Pattern pattern) {
  SourceStack stack = random_stack(shape, Weights::any, 1);
  stack.for_each_matrix([&](SourceMatrix &m) {
    for (int64_t i = 0; i < m.rows * m.columns; ++i)
      m.weights[static_cast<size_t>(i)] = static_cast<float>(pattern(i / m.columns, i % m.columns));
    if (!m.is_int4()) // their sums are no integers, whatever the scales
      m.scales.assign(m.scales.size(), 1.0f);
  });
  stack.layers[0].bias.assign(stack.layers[0].bias.size(), 0.0f);
  return stack;
}

void check_products(const SourceMatrix &source, const Matrix &packed, const uint8_t *bias) {
  const Activations all = extreme_rows(kRows, source.columns, packed);
  std::vector<float> expected;
  for (int64_t rows = 1; rows <= kRows; ++rows) {
    const Activations taken = all.first(rows);
    const auto row = expected_row(source, packed, taken.values.back(), taken.zero_points.back());
    expected.insert(expected.end(), row.begin(), row.end());
    HeldRows x(packed, taken.values, taken.zero_points);
    for (std::string_view isa : supported_isas()) {
      WITH("isa ", isa, " rows ", rows);
      std::vector<float> out(expected.size(), 9.0f);
      kernels(isa).products(packed, all_tiles(packed), bias, rows, x.view(),
                            {out.data(), packed.num_tiles * kTileRows});
      CHECK_SAME(out, expected);
    }
  }
}

namespace {

struct Stepped {
  std::vector<float> c, h;
};

Stepped step(std::string_view isa, const Matrix &hh, HeldRows h_in, const std::vector<float> &gates,
             int64_t rows) {
  const int64_t units = hh.num_tiles * kTileUnits;
  Stepped out{std::vector<float>(static_cast<size_t>(rows * units), 0.0f), {}};
  out.h = out.c;
  kernels(isa).step(
      hh, all_tiles(hh),
      step_arguments(hh, rows, h_in.view(), gates.data(), out.c.data(), out.h.data()));
  return out;
}

} // namespace

void check_step(const SourceMatrix &source, const Matrix &hh, int64_t rows) {
  const Activations taken = extreme_rows(rows, source.columns, hh);
  HeldRows h_in(hh, taken.values, taken.zero_points);
  const float scale = 1.0f / static_cast<float>(source.columns * hh.activation_max);
  std::fill_n(h_in.view().scales, rows, scale);
  std::vector<float> gates, sums;
  for (size_t n = 0; n < taken.values.size(); ++n) {
    const auto products = expected_row(source, hh, taken.values[n], taken.zero_points[n]);
    const auto inputs = random_reals(static_cast<int64_t>(products.size()), -1, 1, gates.size());
    for (size_t i = 0; i < products.size(); ++i)
      sums.push_back(std::fma(products[i], scale, inputs[i]));
    gates.insert(gates.end(), inputs.begin(), inputs.end());
  }
  HeldRows zero(hh, rows, source.columns);
  for (std::string_view isa : supported_isas()) {
    WITH("isa ", isa, " rows ", rows);
    const Stepped found = step(isa, hh, h_in, gates, rows);
    const Stepped expected = step(isa, hh, zero, sums, rows);
    CHECK_SAME(found.c, expected.c);
    CHECK_SAME(found.h, expected.h);
  }
}

} // namespace lstm_fastkernels
