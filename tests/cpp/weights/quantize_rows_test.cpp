// The quantizer: integers in range, pairs that are safe, the best scale for them, rows on a grid
// taken as they are, nothing written beside the row.
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "lstm_fastkernels/weights.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

constexpr int64_t kRows = 5;

struct Quantized {
  std::vector<int8_t> integers;
  std::vector<float> scales;
};

Quantized quantized(const std::vector<float> &weight, int64_t rows, PairSafe pair_safe) {
  const int64_t columns = static_cast<int64_t>(weight.size()) / rows;
  Quantized q{std::vector<int8_t>(weight.size() + 1, 99), std::vector<float>(rows + 1, -1)};
  quantize_rows(weight.data(), rows, columns, pair_safe, q.integers.data(), q.scales.data());
  CHECK(q.integers.back() == 99 && q.scales.back() == -1);
  q.integers.pop_back();
  q.scales.pop_back();
  return q;
}

std::vector<float> random_rows(int64_t columns, float size) {
  std::mt19937 engine(static_cast<unsigned>(columns));
  std::normal_distribution<float> normal;
  std::vector<float> weight(kRows * columns);
  for (float &w : weight)
    w = size * normal(engine);
  return weight;
}

double squared_error(const float *weights, const int8_t *integers, int64_t columns, double scale) {
  double sum = 0;
  for (int64_t k = 0; k < columns; ++k)
    sum += (weights[k] - integers[k] * scale) * (weights[k] - integers[k] * scale);
  return sum;
}

// Calls test(row's weights, its integers, scale).
template <class Test> void for_each_row(int64_t columns, PairSafe pair_safe, const Test &test) {
  for (float size : {1e-20f, 1.0f, 5e37f}) {
    WITH("columns ", columns, " pair_safe ", static_cast<int>(pair_safe), " size ", size);
    const std::vector<float> weight = random_rows(columns, size);
    const Quantized q = quantized(weight, kRows, pair_safe);
    for (int64_t row = 0; row < kRows; ++row)
      test(&weight[row * columns], &q.integers[row * columns], q.scales[row]);
  }
}

TEST(quantized_rows_are_in_range) {
  for (int64_t columns : kAwkward)
    for (PairSafe pair_safe : {PairSafe::never, PairSafe::always})
      for_each_row(columns, pair_safe, [&](const float *, const int8_t *integers, float scale) {
        CHECK(scale > 0);
        for (int64_t k = 0; k < columns; ++k) {
          CHECK(integers[k] >= -127);
          if (pair_safe == PairSafe::always && k % 2)
            CHECK(std::abs(integers[k - 1] + integers[k]) <= 128);
        }
      });
}

TEST(quantized_rows_have_the_best_scale) {
  for (int64_t columns : kAwkward)
    for (PairSafe pair_safe : {PairSafe::never, PairSafe::always})
      for_each_row(columns, pair_safe,
                   [&](const float *weights, const int8_t *integers, float scale) {
                     const double error = squared_error(weights, integers, columns, scale);
                     for (float beside : {0.0f, std::numeric_limits<float>::max()}) {
                       const double other =
                           squared_error(weights, integers, columns, std::nextafter(scale, beside));
                       CHECK(error <= other * (1 + 1e-9));
                     }
                   });
}

TEST(quantized_rows_are_better_than_plain_ones) {
  for (int64_t columns : kAwkward)
    for_each_row(
        columns, PairSafe::never, [&](const float *weights, const int8_t *integers, float scale) {
          double largest = 0;
          for (int64_t k = 0; k < columns; ++k)
            largest = std::max(largest, std::fabs(double{weights[k]}));
          std::vector<int8_t> plain(columns);
          for (int64_t k = 0; k < columns; ++k)
            plain[k] = static_cast<int8_t>(std::nearbyint(weights[k] / (largest / 127)));
          const double noise = static_cast<double>(columns) * largest * 0x1p-23 * largest * 0x1p-23;
          CHECK(squared_error(weights, integers, columns, scale) <=
                squared_error(weights, plain.data(), columns, largest / 127) + noise);
        });
}

TEST(quantized_rows_do_not_depend_on_others) {
  for (int64_t columns : kAwkward) {
    WITH("columns ", columns);
    std::vector<float> weight = random_rows(columns, 1);
    std::fill_n(weight.begin() + columns, columns, 0.0f); // a row of zeros among them
    const Quantized all = quantized(weight, kRows, PairSafe::always);
    for (int64_t row = 0; row < kRows; ++row) {
      const std::vector<float> alone(weight.begin() + row * columns,
                                     weight.begin() + (row + 1) * columns);
      const Quantized one = quantized(alone, 1, PairSafe::always);
      CHECK(one.scales[0] == all.scales[row]);
      CHECK(std::equal(one.integers.begin(), one.integers.end(), &all.integers[row * columns]));
    }
    CHECK(all.scales[1] == 0);
  }
}

TEST(quantized_rows_come_back) {
  std::mt19937 engine(1);
  std::uniform_real_distribution<float> size(1e-3f, 1);
  for (int64_t columns : kAwkward) {
    WITH("columns ", columns);
    std::vector<int8_t> integers(kRows * columns);
    std::vector<float> weight(integers.size());
    for (int64_t row = 0; row < kRows; ++row) {
      const float scale = size(engine);
      const int most = (128 >> row) - static_cast<int>(row);
      for (int64_t k = 0; k < columns; ++k) {
        const int integer = static_cast<int>(engine() % (2 * most)) - most;
        const int64_t at = row * columns + k;
        integers[at] = static_cast<int8_t>(k == 0 ? -most : k == 1 ? 1 : integer);
        weight[at] = integers[at] * scale;
      }
    }
    for (PairSafe pair_safe : {PairSafe::never, PairSafe::automatic, PairSafe::always}) {
      const Quantized q = quantized(weight, kRows, pair_safe);
      for (int64_t row = 0; row < kRows; ++row)
        for (int64_t k = 0; k < columns; ++k) {
          const int64_t at = row * columns + k;
          if (pair_safe == PairSafe::always) {
            CHECK(k % 2 == 0 || std::abs(q.integers[at - 1] + q.integers[at]) <= 128);
          } else {
            CHECK(columns == 1 || q.integers[at] == integers[at]);
            CHECK(q.integers[at] * q.scales[row] == weight[at]);
          }
        }
    }
  }
}

TEST(quantized_rows_do_not_wrap) {
  const std::vector<float> weight{128, 1}; // 128 is no int8
  const Quantized q = quantized(weight, 1, PairSafe::never);
  CHECK(squared_error(weight.data(), q.integers.data(), 2, q.scales[0]) < 0.5);
}

TEST(the_automatic_rule_at_most_doubles_the_error) {
  bool safe = false, free = false;
  for (float outlier : {0.0f, 1.0f, 2.0f, 4.0f, 8.0f}) {
    WITH("outlier ", outlier);
    std::vector<float> weight = random_rows(32, 1);
    for (int64_t row = 0; row < kRows; ++row)
      weight[32 * row] = weight[32 * row + 1] = outlier;
    const auto error_of = [&](PairSafe pair_safe) {
      const Quantized q = quantized(weight, kRows, pair_safe);
      double error = 0;
      for (int64_t row = 0; row < kRows; ++row)
        error += squared_error(&weight[32 * row], &q.integers[32 * row], 32, q.scales[row]);
      return error;
    };
    const double always = error_of(PairSafe::always), never = error_of(PairSafe::never);
    const bool takes_safe = always <= 2 * never;
    CHECK(error_of(PairSafe::automatic) == (takes_safe ? always : never));
    (takes_safe ? safe : free) = true;
  }
  CHECK(safe && free);
}

TEST(quantized_rows_must_be_finite) {
  for (float value :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()})
    for (size_t at : {0, 20, 32}) {
      std::vector<float> weight(33, 1.0f);
      weight[at] = value;
      CHECK_THROWS(quantized(weight, 1, PairSafe::automatic), "weight must be finite");
    }
  CHECK_THROWS(quantize_rows(nullptr, 1, 0, PairSafe::automatic, nullptr, nullptr),
               "must have columns");
}

} // namespace
} // namespace lstm_fastkernels
