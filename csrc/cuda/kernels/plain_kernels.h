// Launchers of the plain path's kernels. Each launch runs several directions of a layer, or layers.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/arithmetic.h"
#include "common/plane.h"
#include "cuda/kernels/device_matrix.h"
#include "cuda/kernels/rows.h"
#include "lstm_fastkernels/data_type.h"

namespace lstm_fastkernels {
namespace cuda {

// The arguments of one launch: up to kMost directions or layers.
template <class A, int kMost> struct Together {
  A of[kMost];
  int count = 0;

  template <class T> T most(T A::*member) const {
    T largest = of[0].*member;
    for (int i = 1; i < count; ++i)
      largest = std::max(largest, of[i].*member);
    return largest;
  }
};
template <class A> using Directions = Together<A, 2>;
constexpr int kMostSideBySide = 4;
template <class A> using SideBySide = Together<A, kMostSideBySide>; // directions, or layers

// Copies h0 and c0 into float rows, and quantizes h0.
struct LoadStateArguments {
  Rows rows;
  const void *h0 = nullptr, *c0 = nullptr; // null: zeros
  DataType type = DataType::float32;
  int32_t h_columns = 0, c_columns = 0;
  float *h = nullptr, *c = nullptr;
  int64_t h_stride = 0, c_stride = 0;
  RowTarget target;
  QuantizedRows quantized; // h0

  Arithmetic arithmetic() const { return target.arithmetic; }
};

// Quantizes rows first .. first + count - 1 of all time steps' rows for a matrix.
struct QuantizeArguments {
  Rows rows;
  int64_t first = 0, count = 0;
  Plane in;
  int64_t in_chunk_row = 0; // the first row's place in the chunk
  RowTarget target;
  QuantizedRows out;
  // Optional copy of the rows as they are; base null: none.
  Plane copy;
  int64_t copy_chunk_row = 0;

  Arithmetic arithmetic() const { return target.arithmetic; }
};

// out[row][padded rows of the matrix] = fma(products, scale of x's row * scale of the weight row,
// bias).
struct ProductsArguments {
  DeviceMatrix matrix;
  const float *bias = nullptr; // null: none
  int64_t count = 0;
  QuantizedRows x;
  float *out = nullptr;

  Arithmetic arithmetic() const { return matrix.arithmetic(); }
};

// One time step: recurrent products, gates, c and h.
struct StepArguments {
  DeviceMatrix hh;
  int32_t active = 0; // rows
  QuantizedRows h_in;
  const float *input_gates = nullptr; // [active][padded rows of hh]
  float *c = nullptr, *h = nullptr;   // [active][units_stride]; h: o tanh(c)
  int64_t units_stride = 0;

  Arithmetic arithmetic() const { return hh.arithmetic(); }
};

// Copies float rows of h and c to the caller.
struct StoreStateArguments {
  Rows rows;
  const float *h = nullptr, *c = nullptr;
  int64_t h_stride = 0, c_stride = 0;
  int32_t h_columns = 0, c_columns = 0;
  void *h_n = nullptr, *c_n = nullptr;
  DataType type = DataType::float32;
};

// No-ops without rows. Throw Error if CUDA refuses a launch. All arguments of a launch have the
// same arithmetic().
void load_state(const Directions<LoadStateArguments> &arguments, void *stream);
void quantize_rows(const SideBySide<QuantizeArguments> &arguments, void *stream);
void products(const SideBySide<ProductsArguments> &arguments, void *stream);
void step(const Directions<StepArguments> &arguments, void *stream);
void store_state(const Directions<StoreStateArguments> &arguments, void *stream);

// Clears the first `columns` of [time_steps][batch] rows of a strided plane.
void clear_rows(const Plane &plane, int64_t time_steps, int64_t batch, int64_t columns,
                void *stream);

// Copies from host memory, which is read before it returns; can be captured into a CUDA graph.
void upload(const int64_t *values, int64_t count, int64_t *to, void *stream);

} // namespace cuda
} // namespace lstm_fastkernels
