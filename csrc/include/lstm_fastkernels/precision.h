// In what numbers a matrix is stored and multiplied.
#pragma once

#include <cstdint>
#include <string_view>

#include "lstm_fastkernels/api.h"
#include "lstm_fastkernels/error.h"

namespace lstm_fastkernels {

// What the arithmetic of this library is called: outputs of one contract are the same bits for
// ever. Files and packed weights record it.
constexpr int kNumericContract = 2;

// The numbers are those of packed weights.
enum class WeightType : uint32_t { int8 = 1, float32 = 2, int4 = 3, float16 = 4 };
// What the rows that a matrix multiplies are quantized to; of token ids the matrix is a table, in
// which they are looked up.
enum class ActivationType : uint32_t { int8 = 1, int16 = 2, float32 = 3, ids = 4 };

struct Precision {
  WeightType weights = WeightType::int8;
  ActivationType activations = ActivationType::int8;
};

inline bool operator==(Precision a, Precision b) {
  return a.weights == b.weights && a.activations == b.activations;
}
inline bool operator!=(Precision a, Precision b) { return !(a == b); }

constexpr bool is_table(Precision precision) {
  return precision.activations == ActivationType::ids;
}

// Whether so many columns can be a group, which shares a scale, of "int4".
constexpr bool is_group_size(int64_t columns) {
  return columns == 32 || columns == 64 || columns == 128;
}

// "int8": int8 weights and activations. "int16": int8 weights, 16-bit activations. "float32": both
// float32. "int4": 4-bit weights, 8-bit activations. "table" and "table_float16": float32 or
// float16 rows that token ids choose. Throws Error for another name, and for a pair that has none.
LSTM_FASTKERNELS_API Precision precision_from(std::string_view name);
LSTM_FASTKERNELS_API std::string_view precision_name(Precision precision);

} // namespace lstm_fastkernels
