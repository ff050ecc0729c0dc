// float16 and bfloat16 to float32 and back, rounding to nearest even.
#pragma once

#include <cstdint>

#include "lstm_fastkernels/lstm.h"

namespace lstm_fastkernels {

inline int64_t bytes_of(DataType type) { return type == DataType::float32 ? 4 : 2; }

void widen(const void *from, DataType type, int64_t count, float *to);
void narrow(const float *from, int64_t count, DataType type, void *to);

} // namespace lstm_fastkernels
