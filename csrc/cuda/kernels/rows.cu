// Kernels over rows, one warp for each.
#include <algorithm>
#include <cmath>

#include "common/rounding.h"
#include "cuda/kernels/device.h"
#include "cuda/kernels/plain_kernels.h"
#include "cuda/kernels/quantize_row.h"
#include "cuda/kernels/values.h"

namespace lstm_fastkernels {
namespace cuda {
namespace {

using namespace device;

constexpr int kWarps = 4;
constexpr int kUploaded = 256; // values in one launch's parameters

LFK_DEVICE int64_t row_of_warp() { return int64_t{block_index().x} * kWarps + warp(); }

template <Arithmetic F>
LFK_KERNEL(kWarps *kLanes, 1)
quantize_kernel(LFK_PARAMETERS(SideBySide<QuantizeArguments>) all) {
  const QuantizeArguments &a = all.of[block_index().z];
  const int64_t n = row_of_warp();
  if (n >= a.count)
    return;
  const int64_t t = a.rows.time_of(a.first + n), row = a.first + n - a.rows.start(t);
  const uint8_t *in = a.in.at(a.rows, t, row, a.in_chunk_row + n);
  const auto value = [&](int64_t i) { return load_value(in, a.in.type, i); };
  quantize_row<F>(a.target, true, a.out, n, value);
  if (!a.copy.base)
    return;
  uint8_t *copy = a.copy.at(a.rows, t, row, a.copy_chunk_row + n);
  for (int i = lane(); i < a.target.columns; i += kLanes)
    store_value(copy, a.copy.type, i, value(i));
}

template <Arithmetic F>
LFK_KERNEL(kWarps *kLanes, 1)
load_state_kernel(LFK_PARAMETERS(Directions<LoadStateArguments>) all) {
  const LoadStateArguments &a = all.of[block_index().z];
  const int64_t row = row_of_warp();
  if (row >= a.rows.batch)
    return;
  const int64_t from = a.rows.caller_row(row);
  const auto h0 = [&](int64_t i) {
    return a.h0 ? load_value(a.h0, a.type, from * a.h_columns + i) : 0.0f;
  };
  bool finite = true;
  for (int i = lane(); i < a.c_stride; i += kLanes) {
    const float c =
        a.c0 && i < a.c_columns ? load_value(a.c0, a.type, from * a.c_columns + i) : 0.0f;
    finite = finite && std::isfinite(c);
    a.c[row * a.c_stride + i] = c;
  }
  for (int i = lane(); i < a.h_stride; i += kLanes)
    a.h[row * a.h_stride + i] = i < a.h_columns ? h0(i) : 0.0f;
  quantize_row<F>(a.target, finite, a.quantized, row, h0);
}

LFK_KERNEL(kWarps *kLanes, 1)
store_state_kernel(LFK_PARAMETERS(Directions<StoreStateArguments>) all) {
  const StoreStateArguments &a = all.of[block_index().z];
  const int64_t row = row_of_warp();
  if (row >= a.rows.batch)
    return;
  const int64_t to = a.rows.caller_row(row);
  for (int i = lane(); i < a.h_columns; i += kLanes)
    store_value(a.h_n, a.type, to * a.h_columns + i, a.h[row * a.h_stride + i]);
  for (int i = lane(); i < a.c_columns; i += kLanes)
    store_value(a.c_n, a.type, to * a.c_columns + i, a.c[row * a.c_stride + i]);
}

struct ClearArguments {
  Plane plane;
  Rows rows;
  int64_t columns = 0;
};

LFK_KERNEL(kWarps *kLanes, 1) clear_kernel(LFK_PARAMETERS(ClearArguments) a) {
  const int64_t n = row_of_warp();
  if (n >= a.rows.time_steps * a.rows.batch)
    return;
  uint8_t *row = a.plane.at(a.rows, n / a.rows.batch, n % a.rows.batch, 0);
  for (int64_t i = lane(); i < a.columns; i += kLanes)
    store_value(row, a.plane.type, i, 0.0f);
}

struct UploadArguments {
  int64_t values[kUploaded];
  int64_t *to = nullptr;
  int32_t count = 0;
};

LFK_KERNEL(kUploaded, 1) upload_kernel(LFK_PARAMETERS(UploadArguments) a) {
  if (thread_index() < a.count)
    a.to[thread_index()] = a.values[thread_index()];
}

Launch warp_a_row(int64_t rows, int count) {
  Launch shape;
  shape.grid = {static_cast<int>(divide_up(rows, kWarps)), 1, count};
  shape.threads = kWarps * kLanes;
  return shape;
}

} // namespace

void quantize_rows(const SideBySide<QuantizeArguments> &all, void *stream) {
  const int64_t count = all.most(&QuantizeArguments::count);
  if (count == 0)
    return;
  with_arithmetic(all.of[0].arithmetic(), [&](auto f) {
    launch(quantize_kernel<f>, warp_a_row(count, all.count), stream, all);
  });
}

void load_state(const Directions<LoadStateArguments> &all, void *stream) {
  with_arithmetic(all.of[0].arithmetic(), [&](auto f) {
    launch(load_state_kernel<f>, warp_a_row(all.of[0].rows.batch, all.count), stream, all);
  });
}

void store_state(const Directions<StoreStateArguments> &all, void *stream) {
  launch(store_state_kernel, warp_a_row(all.of[0].rows.batch, all.count), stream, all);
}

void clear_rows(const Plane &plane, int64_t time_steps, int64_t batch, int64_t columns,
                void *stream) {
  if (time_steps * batch == 0)
    return;
  ClearArguments a;
  a.plane = plane;
  a.rows.batch = batch;
  a.rows.time_steps = time_steps;
  a.columns = columns;
  launch(clear_kernel, warp_a_row(time_steps * batch, 1), stream, a);
}

void upload(const int64_t *values, int64_t count, int64_t *to, void *stream) {
  UploadArguments a;
  for (int64_t first = 0; first < count; first += kUploaded) {
    a.to = to + first;
    a.count = static_cast<int32_t>(std::min<int64_t>(kUploaded, count - first));
    std::copy_n(values + first, a.count, a.values);
    launch(upload_kernel, {{}, kUploaded}, stream, a);
  }
}

} // namespace cuda
} // namespace lstm_fastkernels
