#include "lstm_fastkernels/data_type.h"

#include <cstring>

#include "common/half.h"

namespace lstm_fastkernels {
namespace {

template <class From, class To>
void map(const void *from, int64_t count, void *to, To (*function)(From)) {
  for (int64_t i = 0; i < count; ++i) {
    From value;
    std::memcpy(&value, static_cast<const char *>(from) + i * int64_t{sizeof(From)}, sizeof value);
    const To result = function(value);
    std::memcpy(static_cast<char *>(to) + i * int64_t{sizeof(To)}, &result, sizeof result);
  }
}

} // namespace

void widen(const void *from, DataType type, int64_t count, float *to) {
  switch (type) {
  case DataType::float32:
    std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
    return;
  case DataType::float16:
    return map(from, count, to, from_half);
  case DataType::bfloat16:
    return map(from, count, to, from_bfloat16);
  }
}

void narrow(const float *from, int64_t count, DataType type, void *to) {
  switch (type) {
  case DataType::float32:
    std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
    return;
  case DataType::float16:
    return map(from, count, to, to_half);
  case DataType::bfloat16:
    return map(from, count, to, to_bfloat16);
  }
}

} // namespace lstm_fastkernels
