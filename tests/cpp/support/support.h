// What most tests need: awkward sizes, reproducible randomness, each instruction set.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "check.h"
#include "lstm_fastkernels/isa.h"

namespace lstm_fastkernels {

// What the tests assume of the machine: as many threads as they ask for.
constexpr int kManyProcessors = 64;

inline const std::vector<int64_t> kAwkward = {1, 3, 7, 8, 9, 31, 32, 33, 129, 151};

// splitmix64: the same numbers with every standard library.
class Random {
public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t bits() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }
  int64_t integer(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(bits() % static_cast<uint64_t>(high - low + 1));
  }
  float real(float low, float high) {
    return low + (high - low) * static_cast<float>(bits() >> 40) * 0x1p-24f;
  }

private:
  uint64_t state_;
};

inline float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline std::vector<float> random_reals(int64_t count, float low, float high, uint64_t seed) {
  Random random(seed);
  std::vector<float> values(static_cast<size_t>(count));
  std::generate(values.begin(), values.end(), [&] { return random.real(low, high); });
  return values;
}

// Calls test(isa) with each instruction set in use for lstm_forward; ends on the highest one.
template <class Test> void for_each_isa(const Test &test) {
  for (std::string_view isa : supported_isas()) {
    WITH("isa ", isa);
    set_isa(isa);
    test(isa);
  }
}

} // namespace lstm_fastkernels
