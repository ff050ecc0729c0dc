// Types of a caller's arrays. The kernels compute in float32.
#pragma once

#include <cstdint>

#include "lstm_fastkernels/api.h"

namespace lstm_fastkernels {

enum class DataType { float32, float16, bfloat16 };

inline int64_t bytes_of(DataType type) { return type == DataType::float32 ? 4 : 2; }

// Types of token ids; none where x has values.
enum class IdType { none, int32, int64 };

inline int64_t bytes_of(IdType type) { return type == IdType::int32 ? 4 : 8; }

// To float32 and back, rounding to nearest even. Neighbouring elements; `from` and `to` do not
// overlap and may be misaligned.
LSTM_FASTKERNELS_API void widen(const void *from, DataType type, int64_t count, float *to);
LSTM_FASTKERNELS_API void narrow(const float *from, int64_t count, DataType type, void *to);

} // namespace lstm_fastkernels
