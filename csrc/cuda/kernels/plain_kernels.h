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
  // Quantized h0, with its scales in first_scales.
  QuantizedRows quantized[2];
  float *first_scales = nullptr;
  float min_absmax = 0; // a row's scale comes from no smaller magnitude
  int32_t activation_max = 127;
  // With a projection, where a step puts quantized o tanh(c); its scales are constant.
  QuantizedRows unprojected;
  int32_t unprojected_max = 127;
};

// Quantizes rows first .. first + count - 1 of all time steps' rows for a matrix.
struct QuantizeArguments {
  Rows rows;
  int64_t first = 0, count = 0;
  Plane in;
  int64_t in_chunk_row = 0; // the first row's place in the chunk
  int32_t columns = 0;
  QuantizedRows out;
  float min_absmax = 0;
  int32_t activation_max = 127;
  // Optional copy of the rows as they are; base null: none.
  Plane copy;
  int64_t copy_chunk_row = 0;
};

// out[row][padded rows of the matrix] = fma(products, scale of x's row * scale of the weight row,
// bias).
struct ProductsArguments {
  DeviceMatrix matrix;
  const float *bias = nullptr; // null: none
  int64_t count = 0;
  QuantizedRows x;
  float *out = nullptr;
};

// One time step: recurrent products, gates, c, h and quantized h.
struct StepArguments {
  Rows rows;
  DeviceMatrix hh;
  int64_t t = 0;
  int32_t active = 0; // active rows
  int32_t hidden_size = 0;
  QuantizedRows h_in;
  // Scales of rows from first_row on, for which this is the first step.
  const float *first_scales = nullptr;
  int32_t first_row = 0;
  const float *input_gates = nullptr; // [active][padded rows of hh]
  float *c = nullptr, *h = nullptr;   // [active][units_stride]; h: o tanh(c)
  int64_t units_stride = 0;
  // The kernel sets the scale of a row with a NaN to NaN; scales are constant otherwise.
  QuantizedRows h_out;
  int32_t h_out_max = 127;
  Plane y; // optional copy of h; base null: none
  int64_t y_chunk_row = 0;
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

// No-ops without rows. Throw Error if CUDA refuses a launch.
void load_state(Arithmetic arithmetic, const Directions<LoadStateArguments> &arguments,
                void *stream);
void quantize_rows(Arithmetic arithmetic, const SideBySide<QuantizeArguments> &arguments,
                   void *stream);
void products(Arithmetic arithmetic, const SideBySide<ProductsArguments> &arguments, void *stream);
void step(Arithmetic arithmetic, const Directions<StepArguments> &arguments, void *stream);
void store_state(const Directions<StoreStateArguments> &arguments, void *stream);

// Clears the first `columns` of [time_steps][batch] rows of a strided plane.
void clear_rows(const Plane &plane, int64_t time_steps, int64_t batch, int64_t columns,
                void *stream);

// Copies from host memory, which is read before it returns; can be captured into a CUDA graph.
void upload(const int64_t *values, int64_t count, int64_t *to, void *stream);

} // namespace cuda
} // namespace lstm_fastkernels
