// quantize_row of every instruction set against the numeric contract.
#include <cfloat>
#include <cmath>
#include <limits>
#include <numeric>

#include "check.h"
#include "guarded.h"
#include "kernels/implementations.h"
#include "reference.h"
#include "rows.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

const std::vector<Matrix> &targets() {
  static const std::vector<Matrix> all = [] {
    std::vector<Matrix> made(2);
    made[1].arithmetic = Arithmetic::any8;
    for (int32_t most : {1, 258, 20011, 32767}) {
      made.emplace_back();
      made.back().arithmetic = Arithmetic::signed16;
      made.back().activation_max = most;
    }
    return made;
  }();
  return all;
}

// The row lies against the end of readable memory.
void check_row(std::string_view isa, const std::vector<float> &v, RowKind kind,
               const Matrix &target) {
  WITH("isa ", isa, " n ", v.size(), " bounded ", kind == RowKind::bounded, " arithmetic ",
       static_cast<int>(target.arithmetic), " A ", target.activation_max);
  const QuantizedRow expected = has_zero_points(target.arithmetic)
                                    ? reference_quantize8(v, kind)
                                    : reference_quantize16(v, kind, target.activation_max);
  const auto n = static_cast<int64_t>(v.size());
  const Guarded<float> row(v);
  const int64_t bytes = activation_row_bytes(target, n);
  std::vector<uint8_t> q(static_cast<size_t>(bytes), 0xa5);
  float scale = -1.0f;
  int32_t zero_point = -1;
  kernels(isa).quantize_row(row.data(), n, kind, target, {q.data(), bytes, &scale, &zero_point});
  CHECK(check::same_bits(scale, expected.scale));
  CHECK(zero_point == expected.zero_point);
  const bool is_int4 = target.arithmetic == Arithmetic::int4;
  const int64_t padded = padded_columns(target.arithmetic, n);
  for (int64_t i = 0; i < padded; ++i) {
    WITH("column ", i);
    const int32_t behind = is_int4 ? -zero_point : 0; // zero, with the zero point or without
    CHECK(decode(q.data(), i, target.arithmetic, zero_point) ==
          (i < n ? expected.values[static_cast<size_t>(i)] : behind));
  }
  for (int64_t group = 0; is_int4 && group < target.scale_groups; ++group) {
    WITH("group ", group);
    const auto *const begin = q.data() + group * target.scale_columns;
    const auto *const end = q.data() + std::min((group + 1) * target.scale_columns, padded);
    CHECK(read<int32_t>(q.data() + padded, group) == 8 * std::accumulate(begin, end, 0));
  }
}

// Of 4-bit weights, of a matrix that has so many columns.
Matrix int4_target(int64_t columns, int64_t group_size) {
  Matrix target;
  target.arithmetic = Arithmetic::int4;
  target.scale_columns = group_size;
  target.scale_groups = divide_up(columns, group_size);
  return target;
}

void check_everywhere(const std::vector<float> &v) {
  std::vector<Matrix> all = targets();
  for (int64_t group_size : {32, 64, 128})
    all.push_back(int4_target(static_cast<int64_t>(v.size()), group_size));
  for (std::string_view isa : supported_isas())
    for (const Matrix &target : all)
      for (RowKind kind : {RowKind::any, RowKind::bounded})
        check_row(isa, v, kind, target);
}

TEST(quantize_random_rows) {
  for (int64_t n : kAwkward)
    for (float size : {1e-29f, 0.3f, 1.0f, 1e3f, 1e38f}) {
      WITH("seed ", n, " size ", size);
      check_everywhere(random_reals(n, -size, size, static_cast<uint64_t>(n)));
      check_everywhere(random_reals(n, 0.1f * size, size, static_cast<uint64_t>(n)));
      check_everywhere(random_reals(n, -size, 0.01f * size, static_cast<uint64_t>(n)));
    }
}

TEST(quantize_random_bits) {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    WITH("seed ", seed);
    Random random(seed);
    std::vector<float> v;
    for (int64_t n = random.integer(1, 40); n > 0; --n)
      v.push_back(float_of(static_cast<uint32_t>(random.bits())));
    check_everywhere(v);
  }
}

TEST(quantize_reference_ties_to_even) {
  const QuantizedRow wide = reference_quantize16({254, 1, 3, -1, -3, 5, 2.999f}, RowKind::any, 127);
  CHECK(wide.values == std::vector<int32_t>({127, 0, 2, 0, -2, 2, 1}) && wide.scale == 2.0f);
  const QuantizedRow row = reference_quantize8({450, 1, 3, -1, -3, 5, -60}, RowKind::any);
  CHECK(row.values == std::vector<int32_t>({225, 0, 2, 0, -2, 2, -30}));
  CHECK(row.scale == 2.0f && row.zero_point == 30);
}

// With a step of 2 every odd number lies in the middle of two integers.
TEST(quantize_ties_to_even) {
  for (std::string_view isa : supported_isas())
    for (const Matrix &target : targets()) {
      const auto most = static_cast<float>(target.activation_max);
      std::vector<float> v = {2 * most};
      if (has_zero_points(target.arithmetic))
        v = {510 - 34, -34};
      for (float f = -33; f <= 33 && most >= 127; f += 1)
        v.push_back(f);
      check_row(isa, v, RowKind::any, target);
    }
}

// h comes so from a step: 0, 1 and -1 are there, and 16 bits are rounded to 8.
TEST(quantize_bounded_rows) {
  for (float largest : {0x1p-20f, 1.0f / 32767, 1.5f / 32767, 0.01f, 0.7f, 1.0f}) {
    WITH("largest ", largest);
    check_everywhere({largest, -largest, 0.0f});
    check_everywhere({largest, 0.0f});
    check_everywhere({-largest, -0.5f * largest});
    check_everywhere(random_reals(151, -largest, largest, 3));
  }
}

TEST(quantize_small_and_large_rows) {
  for (size_t n : {1u, 7u, 8u, 9u})
    for (float size :
         {0.0f, -0.0f, FLT_TRUE_MIN, FLT_MIN, 1e-31f, 0.99e-30f, 1e-30f, 1.01e-30f, 0x1.fdp-93f,
          0x1.fep-93f, 0x1.ffp-93f, 1.0f, std::nextafter(1.0f, 2.0f), FLT_MAX, -FLT_MAX}) {
      WITH("size ", size);
      std::vector<float> v(n, 0.0f);
      v[n / 2] = size;
      check_everywhere(v);
      check_everywhere(std::vector<float>(n, size));
    }
}

TEST(quantize_non_finite_rows) {
  for (float bad : {kNan, -kNan, kInfinity, -kInfinity, float_of(0x7f800001)})
    for (size_t n : {1u, 8u, 9u, 31u})
      for (size_t at : {size_t{0}, n / 2, n - 1}) {
        WITH("bad ", bad, " at ", at);
        std::vector<float> v(n, 0.5f);
        v[at] = bad;
        check_everywhere(v);
      }
}

} // namespace
} // namespace lstm_fastkernels
