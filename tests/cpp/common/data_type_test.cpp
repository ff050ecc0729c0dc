// float16 and bfloat16 against their definitions in double: every pattern, and every rounding.
#include "lstm_fastkernels/data_type.h"

#include <cmath>
#include <limits>

#include "check.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Format {
  DataType type;
  int fraction_bits, smallest_exponent; // of a normal number

  int largest_exponent() const { return 1 - smallest_exponent; }
  int infinity_bits() const {
    return ((largest_exponent() - smallest_exponent + 2) << fraction_bits);
  }
};

constexpr Format kFormats[] = {{DataType::float16, 10, -14}, {DataType::bfloat16, 7, -126}};

// The value of a pattern without its sign.
double value_of(const Format &format, int bits) {
  if (bits > format.infinity_bits())
    return std::numeric_limits<double>::quiet_NaN();
  if (bits == format.infinity_bits())
    return kInfinity;
  const int exponent = bits >> format.fraction_bits, unit = 1 << format.fraction_bits;
  const int fraction = bits % unit + (exponent ? unit : 0);
  return std::ldexp(fraction,
                    std::max(exponent, 1) - 1 + format.smallest_exponent - format.fraction_bits);
}

// The nearest number of the format, ties to even.
double nearest(const Format &format, double value) {
  const int exponent = std::max(std::ilogb(value), format.smallest_exponent);
  const double unit = std::ldexp(1.0, exponent - format.fraction_bits);
  const double rounded = std::nearbyint(value / unit) * unit;
  return rounded < std::ldexp(1.0, format.largest_exponent() + 1) ? rounded : kInfinity;
}

float widened(const Format &format, int bits) {
  const auto pattern = static_cast<uint16_t>(bits);
  float value;
  widen(&pattern, format.type, 1, &value);
  return value;
}

int narrowed(const Format &format, float value) {
  uint16_t bits;
  narrow(&value, 1, format.type, &bits);
  return bits;
}

TEST(every_pattern_is_its_value_and_comes_back) {
  for (const Format &format : kFormats)
    for (int bits = 0; bits < 0x8000; ++bits) {
      WITH("bits ", bits, " type ", static_cast<int>(format.type));
      const double value = value_of(format, bits);
      for (int sign : {0, 0x8000}) {
        const float found = widened(format, bits | sign);
        CHECK(std::signbit(found) == (sign != 0));
        const int back = narrowed(format, found);
        if (std::isnan(value)) {
          CHECK(std::isnan(found) && std::isnan(widened(format, back)) && (back & 0x8000) == sign);
        } else {
          CHECK(std::abs(found) == value);
          CHECK(back == (bits | sign));
        }
      }
    }
}

void check_rounding(const Format &format, float value) {
  WITH("value ", value, " type ", static_cast<int>(format.type));
  const double expected = nearest(format, value);
  for (float sign : {1.0f, -1.0f}) {
    const float found = widened(format, narrowed(format, sign * value));
    CHECK(found == sign * expected && std::signbit(found) == (sign < 0));
  }
}

// Between neighbours: the middle, and the floats on either side of it.
TEST(rounding_is_to_nearest_even) {
  for (const Format &format : kFormats)
    for (int bits = 0; bits + 1 < format.infinity_bits(); ++bits) {
      const double low = value_of(format, bits), high = value_of(format, bits + 1);
      const auto middle = static_cast<float>((low + high) / 2);
      check_rounding(format, middle);
      check_rounding(format, std::nextafter(middle, 0.0f));
      check_rounding(format, std::nextafter(middle, 1e38f));
    }
}

TEST(rounding_past_the_largest_number_is_infinity) {
  const Format &half = kFormats[0], &bfloat = kFormats[1];
  const float middle = 65520.0f; // of 65504 and 2^16
  CHECK(widened(half, narrowed(half, std::nextafter(middle, 0.0f))) == 65504.0f);
  for (float value : {middle, 1e30f, std::numeric_limits<float>::max()})
    CHECK(narrowed(half, value) == 0x7c00 && narrowed(half, -value) == 0xfc00);
  CHECK(narrowed(bfloat, float_of(0x7f7f7fff)) == 0x7f7f);
  CHECK(narrowed(bfloat, float_of(0x7f7f8000)) == 0x7f80);
  CHECK(narrowed(bfloat, std::numeric_limits<float>::max()) == 0x7f80);
}

TEST(random_floats_round_to_nearest) {
  Random random(1);
  for (int i = 0; i < 100000; ++i) {
    const float value = std::abs(float_of(static_cast<uint32_t>(random.bits())));
    for (const Format &format : kFormats)
      if (std::isfinite(value) && value > 0)
        check_rounding(format, value);
      else if (std::isnan(value))
        CHECK(std::isnan(widened(format, narrowed(format, value))));
  }
}

TEST(float32_is_copied) {
  const std::vector<float> from = {0.0f, -0.0f, 1e-40f, 3.5f, float_of(0x7f800000)};
  std::vector<float> to(from.size());
  widen(from.data(), DataType::float32, 5, to.data());
  CHECK_SAME(to, from);
  std::vector<float> back(from.size());
  narrow(to.data(), 5, DataType::float32, back.data());
  CHECK_SAME(back, from);
}

} // namespace
} // namespace lstm_fastkernels
