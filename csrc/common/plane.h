// Where the rows of a sequence lie in memory.
#pragma once

#include <cstdint>

#include "common/host_device.h"
#include "lstm_fastkernels/lstm.h"

namespace lstm_fastkernels {

struct Plane {
  enum class Addressing { strided, contiguous, chunk } addressing = Addressing::strided;
  uint8_t *base = nullptr;
  DataType type = DataType::float32;
  int64_t row_bytes = 0;
  int64_t time_bytes = 0;

  // Row `row` of time step t, which is the chunk's row `chunk_row`.
  template <class Rows>
  LFK_HOST_DEVICE uint8_t *at(const Rows &schedule, int64_t t, int64_t row,
                              int64_t chunk_row) const {
    switch (addressing) {
    case Addressing::strided:
      return base + t * time_bytes + schedule.caller_row(row) * row_bytes;
    case Addressing::contiguous:
      return base + (schedule.start(t) + row) * row_bytes;
    default:
      return base + chunk_row * row_bytes;
    }
  }

  Plane columns_from(int64_t column) const {
    Plane shifted = *this;
    shifted.base += column * bytes_of(type);
    return shifted;
  }
};

inline Plane caller_plane(const LstmArguments &a, const void *data, int64_t size,
                          int64_t time_stride, int64_t row_stride) {
  const auto addressing =
      a.batch_sizes ? Plane::Addressing::contiguous : Plane::Addressing::strided;
  return {addressing, static_cast<uint8_t *>(const_cast<void *>(data)), a.data_type,
          row_stride * size, time_stride * size};
}

inline Plane x_plane(const LstmArguments &a) {
  const bool values = a.id_type == IdType::none;
  return caller_plane(a, a.x, values ? bytes_of(a.data_type) : bytes_of(a.id_type), a.x_time_stride,
                      a.x_row_stride);
}
inline Plane y_plane(const LstmArguments &a) {
  return caller_plane(a, a.y, bytes_of(a.data_type), a.y_time_stride, a.y_row_stride);
}

// Throws Error unless a call with rows has its memory, and no row of y lies in another one.
void check_memory(const LstmArguments &a, const LstmShape &shape);

} // namespace lstm_fastkernels
