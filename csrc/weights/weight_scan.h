// What packed weights hold, whatever their layout: a pass over units of memory in which the same
// bytes belong to the same rows, such as the groups of a tile.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

#include "common/arithmetic.h"

namespace lstm_fastkernels {

// Of int8, two by two: neighbours are those of one row.
template <int Bytes> class IntegerScan {
public:
  static constexpr int kBytes = Bytes;

  void add(const uint8_t *unit) {
    uint16_t pairs[kPairs];
    std::memcpy(pairs, unit, sizeof pairs);
    for (int i = 0; i < kPairs; ++i) {
      const int16_t high = static_cast<int16_t>(static_cast<int16_t>(pairs[i]) >> 8);
      const int16_t low = static_cast<int16_t>(static_cast<int16_t>(pairs[i] << 8) >> 8);
      const int16_t sum = static_cast<int16_t>(low + high);
      sums_[i] = static_cast<int16_t>(sums_[i] + sum);
      magnitudes_[i] = static_cast<int16_t>(magnitudes_[i] + magnitude(low) + magnitude(high));
      widest_[i] = std::max(widest_[i], magnitude(sum));
    }
    if (++pending_ == kMostPending)
      flush();
  }

  // Calls visit(byte, sum, sum of magnitudes) for each pair that starts at `byte` of all units
  // since the last time.
  template <class Visit> void take(const Visit &visit) {
    flush();
    for (int i = 0; i < kPairs; ++i) {
      visit(2 * i, all_sums_[i], all_magnitudes_[i]);
      all_sums_[i] = all_magnitudes_[i] = 0;
    }
  }

  bool finite() const { return true; }
  // Of everything so far: no two neighbours beyond -128..128.
  bool pair_safe() const { return *std::max_element(widest_, widest_ + kPairs) <= 128; }

private:
  static constexpr int kPairs = Bytes / 2;
  static constexpr int kMostPending = 64; // sums fit 16 bits

  static int16_t magnitude(int16_t v) { return static_cast<int16_t>(v < 0 ? -v : v); }

  void flush() {
    for (int i = 0; i < kPairs; ++i) {
      all_sums_[i] += sums_[i];
      all_magnitudes_[i] += magnitudes_[i];
      sums_[i] = magnitudes_[i] = 0;
    }
    pending_ = 0;
  }

  int16_t sums_[kPairs] = {}, magnitudes_[kPairs] = {}, widest_[kPairs] = {};
  int32_t all_sums_[kPairs] = {}, all_magnitudes_[kPairs] = {};
  int pending_ = 0;
};

// Of floats. The sum of magnitudes is only zero or not, and there is no other.
template <int Bytes> class FloatScan {
public:
  static constexpr int kBytes = Bytes;

  void add(const uint8_t *unit) {
    int32_t bits[kFloats];
    std::memcpy(bits, unit, sizeof bits);
    for (int i = 0; i < kFloats; ++i)
      most_[i] = std::max(most_[i], bits[i] & std::numeric_limits<int32_t>::max());
  }

  template <class Visit> void take(const Visit &visit) {
    for (int i = 0; i < kFloats; ++i) {
      visit(4 * i, 0, most_[i] != 0);
      all_most_ = std::max(all_most_, most_[i]);
      most_[i] = 0;
    }
  }

  // Of everything taken so far.
  bool finite() const { return all_most_ < kInfinity; }
  bool pair_safe() const { return true; }

private:
  static constexpr int kFloats = Bytes / 4;
  static constexpr int32_t kInfinity = 0x7f800000; // as bits: NaN lies above

  int32_t most_[kFloats] = {};
  int32_t all_most_ = 0;
};

} // namespace lstm_fastkernels
