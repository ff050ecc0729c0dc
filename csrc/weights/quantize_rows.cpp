// Rows of int8, and groups of int4, each of which is quantized as a row. A row that integers and a
// scale give exactly is taken as it is. For others a scale is searched: it is tried by rounding the
// row with it and summing the squared errors; for the best one's integers, least squares gives the
// final scale. Operations and their order are the same on all machines, and so are the results.
#include "weights/quantize_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "common/fail.h"
#include "common/half.h"
#include "common/numerics.h"
#include "common/rounding.h"
#include "weights/packed_int4.h"

namespace lstm_fastkernels {
namespace {

// What searched weights are rounded to, and the largest magnitude of those that are taken exactly.
struct Range {
  float least, most;
  int largest;
};
constexpr Range kInt8{-127, 127, 128}, kInt4{-8, 7, 8};
constexpr float kPairMax = 128;

// PairSafe::automatic lets the squared error of a matrix grow so far.
constexpr double kPairSafeGrowth = 2;

// A task takes so many weights at a time.
constexpr int64_t kWeightsATask = 1 << 16;

// Pairs of weights between two looks at the sum.
constexpr int kBlock = 16;

// Squared errors of a row of largest magnitude 1 that may be equal but for float32: in their sum,
// and for each column in what it adds.
constexpr double kUndecided = 4e-6, kUndecidedColumn = 0x1p-46;

// Scales tried, relative to the row's largest magnitude / the largest integer: below 1 the largest
// weights are clipped for a finer grid, towards 2 a row of large neighbours becomes pair-safe
// without rounding.
constexpr float kFirstInt4 = 0.5f, kFirst = 0.6f, kLast = 2.05f, kLastFree = 1.05f;
constexpr int kCoarse = 30;
constexpr int kFine = 4; // on either side of a coarse one, in hundredths

// Those that clip nothing and round no pair come first: most others are given up early then.
std::vector<float> coarse_factors(bool pair_safe) {
  std::vector<float> factors{1};
  if (pair_safe)
    factors.push_back(kInt8.most / (kPairMax / 2));
  constexpr double step = (kLast - kFirst) / (kCoarse - 1);
  for (int i = 0; i < kCoarse; ++i) {
    const double factor = i < kCoarse / 2 ? kFirst + step * i : kLast - step * (kCoarse - 1 - i);
    if (pair_safe || static_cast<float>(factor) <= kLastFree)
      factors.push_back(static_cast<float>(factor));
  }
  return factors;
}

// Of few integers those that the largest weight may become matter: all, and clipped ones.
std::vector<float> coarse_factors_int4() {
  std::vector<float> factors{1};
  for (int i = 0; i < kCoarse; ++i)
    factors.push_back(kFirstInt4 + (kLastFree - kFirstInt4) / kCoarse * static_cast<float>(i));
  for (float largest = kInt4.most - 1; largest >= 1; --largest)
    for (const float factor : {0.94f, 0.97f, 1.0f, 1.03f, 1.06f})
      factors.push_back(kInt4.most / largest * factor);
  return factors;
}

std::vector<float> fine_factors(float coarse) {
  std::vector<float> factors;
  for (int i = -kFine; i <= kFine; ++i)
    factors.push_back(coarse + static_cast<float>(i) / 100);
  return factors;
}

// Four at once, in the vectors of GCC and clang: loops do not vectorize where floats may trap.
typedef float Floats __attribute__((vector_size(16)));
typedef uint32_t Bits __attribute__((vector_size(16)));
constexpr int kLanes = 4;

inline Floats load(const float *from) {
  Floats floats;
  std::memcpy(&floats, from, sizeof floats);
  return floats;
}

inline Floats round_weight(Floats scaled, const Range &range) {
  const Floats least = Floats{} + range.least, most = Floats{} + range.most;
  const Floats below = scaled < most ? scaled : most;
  return round_to_integer(below > least ? below : least);
}

inline Bits sign_of(Floats value) { return reinterpret_cast<Bits>(value) & 0x80000000u; }
inline Floats times_sign(Floats value, Bits sign) {
  return reinterpret_cast<Floats>(reinterpret_cast<Bits>(value) ^ sign);
}

struct Pairs {
  Floats first, second;
};

// Where a rounded pair adds up to more than 128, both shrink towards zero by half of what is too
// much: the nearest allowed pair in squared error. Of an odd excess the weight that was rounded
// away from zero most gives the extra unit.
inline Pairs round_pairs(Floats first, Floats second, const Range &range, bool pair_safe) {
  const Pairs rounded{round_weight(first, range), round_weight(second, range)};
  if (!pair_safe)
    return rounded;
  const Floats total = rounded.first + rounded.second;
  const Bits sign = sign_of(total);
  const Floats too_much = times_sign(total, sign) - kPairMax;
  const Floats excess = too_much > 0 ? too_much : Floats{};
  const Floats less = round_to_integer(excess * 0.5f - 0.25f), more = excess - less;
  const auto first_gives_more =
      times_sign(rounded.first - first, sign) >= times_sign(rounded.second - second, sign);
  const Floats gives = first_gives_more ? more : less;
  return {rounded.first - times_sign(gives, sign),
          rounded.second - times_sign(excess - gives, sign)};
}

// A row divided by its largest magnitude, so that squares neither overflow nor vanish.
class UnitRow {
public:
  UnitRow(int64_t columns, const Range &range, bool pair_safe)
      : columns_(columns), pairs_(round_up(divide_up(columns, 2), kLanes)), range_(range),
        pair_safe_(pair_safe), even_(pairs_), odd_(pairs_),
        largest_sums_(divide_up(pairs_, kBlock)) {}

  void set(const float *weights, float largest) {
    for (int64_t k = 0; k < columns_ / 2; ++k) {
      even_[k] = weights[2 * k] / largest;
      odd_[k] = weights[2 * k + 1] / largest;
    }
    if (columns_ % 2)
      even_[columns_ / 2] = weights[columns_ - 1] / largest;
    if (pair_safe_)
      find_largest_sums();
  }

  // Of `factors`, those whose squared error may be the least.
  std::vector<float> best(const std::vector<float> &factors) const {
    double limit = std::numeric_limits<double>::infinity();
    std::vector<std::pair<float, double>> tried;
    for (const float factor : factors) {
      const double error = squared_error(factor, limit);
      tried.emplace_back(factor, error);
      limit = std::min(limit, error * (1 + kUndecided) + columns_ * kUndecidedColumn);
    }
    std::vector<float> best;
    for (const auto &[factor, error] : tried)
      if (error <= limit)
        best.push_back(factor);
    return best;
  }

  // Writes padded() integers.
  void quantize(float factor, int8_t *quantized) const {
    const float inverse_scale = 1 / scale_of(factor);
    for (int64_t pair = 0; pair < pairs_; pair += kLanes) {
      const Pairs pairs = rounded(pair, inverse_scale, pair_safe_);
      for (int lane = 0; lane < kLanes; ++lane) {
        *quantized++ = static_cast<int8_t>(pairs.first[lane]);
        *quantized++ = static_cast<int8_t>(pairs.second[lane]);
      }
    }
  }

  int64_t padded() const { return 2 * pairs_; }

private:
  float scale_of(float factor) const { return 1 / range_.most * factor; }

  int64_t end_of_block(int64_t begin) const { return std::min(begin + kBlock, pairs_); }

  void find_largest_sums() {
    for (int64_t begin = 0; begin < pairs_; begin += kBlock) {
      Floats largest{};
      for (int64_t pair = begin; pair < end_of_block(begin); pair += kLanes) {
        const Floats sum = load(&even_[pair]) + load(&odd_[pair]);
        const Floats magnitude = times_sign(sum, sign_of(sum));
        largest = magnitude > largest ? magnitude : largest;
      }
      largest_sums_[begin / kBlock] =
          std::max(std::max(largest[0], largest[1]), std::max(largest[2], largest[3]));
    }
  }

  Pairs rounded(int64_t pair, float inverse_scale, bool pair_safe) const {
    return round_pairs(load(&even_[pair]) * inverse_scale, load(&odd_[pair]) * inverse_scale,
                       range_, pair_safe);
  }

  // Ends early once it is more than `limit`.
  double squared_error(float factor, double limit) const {
    const float scale = scale_of(factor), inverse_scale = 1 / scale;
    double error = 0;
    for (int64_t begin = 0; begin < pairs_ && error <= limit; begin += kBlock) {
      // Rounding adds half to each weight of a pair at most.
      const bool unsafe = largest_sums_[begin / kBlock] > (kPairMax - 0.5f) * scale;
      Floats sum{};
      for (int64_t pair = begin; pair < end_of_block(begin); pair += kLanes) {
        const Pairs pairs = rounded(pair, inverse_scale, unsafe);
        const Floats first = pairs.first * scale - load(&even_[pair]);
        const Floats second = pairs.second * scale - load(&odd_[pair]);
        sum += first * first + second * second;
      }
      error += (double{sum[0]} + sum[1]) + (double{sum[2]} + sum[3]);
    }
    return error;
  }

  int64_t columns_, pairs_;
  const Range &range_;
  bool pair_safe_;
  std::vector<float> even_, odd_;   // columns, zeros behind them
  std::vector<float> largest_sums_; // of a pair in each block; zeros where any pair will do
};

// term(0) + ... + term(count - 1), in lanes.
template <class Term> double sum_of(int64_t count, const Term &term) {
  double sums[kLanes] = {};
  int64_t k = 0;
  for (; k + kLanes <= count; k += kLanes)
    for (int lane = 0; lane < kLanes; ++lane)
      sums[lane] += term(k + lane);
  for (; k < count; ++k)
    sums[k % kLanes] += term(k);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// The scale with which these integers stand for the weights best.
float least_squares_scale(const float *weights, const int8_t *quantized, int64_t columns) {
  int64_t squares = 0;
  for (int64_t k = 0; k < columns; ++k)
    squares += quantized[k] * quantized[k];
  const auto product = [&](int64_t k) { return double{weights[k]} * quantized[k]; };
  return static_cast<float>(sum_of(columns, product) / static_cast<double>(squares));
}

double squared_error(const float *weights, const int8_t *quantized, float scale, int64_t columns) {
  return sum_of(columns, [&](int64_t k) {
    const double error = double{scale} * quantized[k] - weights[k];
    return error * error;
  });
}

// Of the weights that are not zero; zeros if there is none. `largest` may be infinite or NaN.
struct Magnitudes {
  float smallest, largest;
};

Magnitudes magnitudes_of(const float *weights, int64_t columns) {
  // Bits of floats have their order, those that are not finite at its end.
  uint32_t smallest_less_one = ~0u, largest = 0;
  for (int64_t k = 0; k < columns; ++k) {
    const uint32_t bits = bits_of(weights[k]) & 0x7fffffffu;
    smallest_less_one = std::min(smallest_less_one, bits - 1); // zero comes last
    largest = std::max(largest, bits);
  }
  return {float_of(smallest_less_one + 1), float_of(largest)};
}

// Whether integers times `scale`, in float32, are the weights; if so, writes them.
bool divide_exactly(const float *weights, int64_t columns, const Range &range, float scale,
                    int8_t *quantized) {
  for (int64_t k = 0; k < columns; ++k) {
    const float integer = round_to_integer(weights[k] / scale);
    if (integer * scale != weights[k] || integer > range.most)
      return false;
    quantized[k] = static_cast<int8_t>(integer);
  }
  return true;
}

// The scale with which integers give the weights exactly, and these integers: the smallest ones
// that do. 0 where there are none.
float exact_scale(const float *weights, int64_t columns, const Range &range, Magnitudes magnitudes,
                  int8_t *quantized) {
  for (int most = 1; most <= range.largest; ++most) {
    const float quotient = magnitudes.largest / static_cast<float>(most);
    const uint32_t bits = bits_of(quotient);
    // Several may give the largest weight; most others fail on the smallest.
    for (const float scale : {quotient, float_of(bits - 1), float_of(bits + 1)})
      if (round_to_integer(magnitudes.smallest / scale) * scale == magnitudes.smallest &&
          divide_exactly(weights, columns, range, scale, quantized))
        return scale;
  }
  return 0;
}

bool is_pair_safe(const int8_t *quantized, int64_t columns) {
  for (int64_t k = 0; k + 1 < columns; k += 2)
    if (std::abs(quantized[k] + quantized[k + 1]) > kPairMax)
      return false;
  return true;
}

// Quantizes rows of one length.
class RowSearch {
public:
  RowSearch(int64_t columns, const Range &range, bool pair_safe)
      : columns_(columns), range_(range), pair_safe_(pair_safe),
        coarse_(&range == &kInt4 ? coarse_factors_int4() : coarse_factors(pair_safe)),
        unit_(columns, range, pair_safe), candidate_(unit_.padded()) {}

  // Returns the squared error.
  double quantize(const float *weights, int8_t *quantized, float *scale) {
    const Magnitudes magnitudes = magnitudes_of(weights, columns_);
    if (!std::isfinite(magnitudes.largest))
      fail("weight must be finite");
    if (magnitudes.largest < 1e-30f) {
      std::fill_n(quantized, columns_, int8_t{0});
      *scale = 0;
      return 0;
    }
    *scale = exact_scale(weights, columns_, range_, magnitudes, quantized);
    if (*scale != 0 && (!pair_safe_ || is_pair_safe(quantized, columns_)))
      return 0;
    return search(weights, magnitudes.largest, quantized, scale);
  }

private:
  double search(const float *weights, float largest, int8_t *quantized, float *scale_found) {
    unit_.set(weights, largest);
    double least = std::numeric_limits<double>::infinity();
    for (const float factor : unit_.best(coarse_))
      for (const float fine : unit_.best(fine_factors(factor))) {
        unit_.quantize(fine, candidate_.data());
        const float scale = least_squares_scale(weights, candidate_.data(), columns_);
        const double error = squared_error(weights, candidate_.data(), scale, columns_);
        if (error < least) {
          least = error;
          *scale_found = scale;
          std::copy_n(candidate_.begin(), columns_, quantized);
        }
      }
    return least;
  }

  int64_t columns_;
  const Range &range_;
  bool pair_safe_;
  std::vector<float> coarse_;
  UnitRow unit_;
  std::vector<int8_t> candidate_;
};

struct QuantizedMatrix {
  int8_t *integers;
  float *scales;
};

// Calls quantize_rows(begin, end) for parts of the rows.
template <class QuantizeRows>
void share_rows(int64_t rows, int64_t columns, const RunTasks &run_tasks,
                const QuantizeRows &quantize_rows) {
  const int64_t rows_a_task = 1 + kWeightsATask / columns;
  run_tasks(static_cast<int>(divide_up(rows, rows_a_task)), [&](int task) {
    quantize_rows(task * rows_a_task, std::min((task + 1) * rows_a_task, rows));
  });
}

// Returns the squared error: of rows in their order, however they are shared out.
double quantize_all(const float *weight, int64_t rows, int64_t columns, bool pair_safe,
                    QuantizedMatrix to, const RunTasks &run_tasks) {
  std::vector<double> errors(rows);
  share_rows(rows, columns, run_tasks, [&](int64_t begin, int64_t end) {
    RowSearch search(columns, kInt8, pair_safe);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row * columns;
      errors[row] = search.quantize(weight + at, to.integers + at, to.scales + row);
    }
  });
  return std::accumulate(errors.begin(), errors.end(), 0.0);
}

void check_columns(int64_t columns) {
  if (columns < 1)
    fail("weight must have columns, got " + std::to_string(columns));
}

void run_in_order(int count, const std::function<void(int)> &task) {
  for (int i = 0; i < count; ++i)
    task(i);
}

} // namespace

void quantize_rows(const float *weight, int64_t rows, int64_t columns, PairSafe pair_safe,
                   int8_t *quantized, float *scales, const RunTasks &run_tasks) {
  check_columns(columns);
  const auto quantize = [&](bool safe, QuantizedMatrix to) {
    return quantize_all(weight, rows, columns, safe, to, run_tasks);
  };
  const double error = quantize(pair_safe == PairSafe::always, {quantized, scales});
  if (pair_safe != PairSafe::automatic)
    return;
  std::vector<int8_t> safe(rows * columns);
  std::vector<float> safe_scales(rows);
  if (quantize(true, {safe.data(), safe_scales.data()}) <= kPairSafeGrowth * error) {
    std::copy(safe.begin(), safe.end(), quantized);
    std::copy(safe_scales.begin(), safe_scales.end(), scales);
  }
}

void quantize_rows(const float *weight, int64_t rows, int64_t columns, PairSafe pair_safe,
                   int8_t *quantized, float *scales) {
  quantize_rows(weight, rows, columns, pair_safe, quantized, scales, run_in_order);
}

void quantize_groups(const float *weight, int64_t rows, int64_t columns, int64_t group_size,
                     uint8_t *quantized, float *scales, const RunTasks &run_tasks) {
  check_columns(columns);
  check_group_size(group_size);
  const int64_t groups = divide_up(columns, group_size), row_bytes = divide_up(columns, 2);
  const int64_t last = columns - (groups - 1) * group_size;
  share_rows(rows, columns, run_tasks, [&](int64_t begin, int64_t end) {
    RowSearch whole(group_size, kInt4, false), rest(last, kInt4, false);
    std::vector<int8_t> integers(round_up(columns, 2)); // a missing last column is zero
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t group = 0; group < groups; ++group) {
        const int64_t first = group * group_size;
        (group + 1 < groups ? whole : rest)
            .quantize(weight + row * columns + first, &integers[first],
                      scales + row * groups + group);
      }
      for (int64_t i = 0; i < row_bytes; ++i)
        quantized[row * row_bytes + i] =
            static_cast<uint8_t>((integers[2 * i] & 15) | (integers[2 * i + 1] & 15) << 4);
    }
  });
}

void quantize_groups(const float *weight, int64_t rows, int64_t columns, int64_t group_size,
                     uint8_t *quantized, float *scales) {
  quantize_groups(weight, rows, columns, group_size, quantized, scales, run_in_order);
}

} // namespace lstm_fastkernels
