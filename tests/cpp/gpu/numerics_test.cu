// The functions of numerics.h give the same bits on a device as on the CPU.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "check.h"
#include "common/numerics.h"

namespace lstm_fastkernels {
namespace {

constexpr int kThreads = 256;
constexpr uint64_t kStride = 509; // every so many of all floats
constexpr uint64_t kFloats = (uint64_t{1} << 32) / kStride;

struct Values {
  float tanh, sigmoid;
};

LFK_HOST_DEVICE Values values_at(uint64_t i) {
  const auto bits = static_cast<uint32_t>(i * kStride);
  float x;
  memcpy(&x, &bits, sizeof x);
  return {tanh_approx(x), sigmoid_approx(x)};
}

__global__ void all_values(Values *out) {
  const uint64_t i = uint64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < kFloats)
    out[i] = values_at(i);
}

bool same(float a, float b) {
  return (std::isnan(a) && std::isnan(b)) || std::memcmp(&a, &b, sizeof a) == 0;
}

TEST(tanh_and_sigmoid_on_a_device) {
  Values *on_device = nullptr;
  CHECK(cudaMalloc(&on_device, kFloats * sizeof(Values)) == cudaSuccess);
  all_values<<<(kFloats + kThreads - 1) / kThreads, kThreads>>>(on_device);
  std::vector<Values> found(kFloats);
  CHECK(cudaMemcpy(found.data(), on_device, kFloats * sizeof(Values), cudaMemcpyDeviceToHost) ==
        cudaSuccess);
  cudaFree(on_device);
  for (uint64_t i = 0; i < kFloats; ++i) {
    const Values expected = values_at(i);
    const bool right =
        same(found[i].tanh, expected.tanh) && same(found[i].sigmoid, expected.sigmoid);
    if (!right)
      check::fail(__FILE__, __LINE__, "float of bits " + std::to_string(i * kStride));
  }
}

struct Quantized {
  RowQuantizer by;
  int32_t at[3]; // of the ends and the middle of the row's range
};

// Of any rows of two values: bits as they come, those that are not finite included.
LFK_HOST_DEVICE Quantized quantized_at(uint64_t i) {
  const uint64_t mixed = i * 0x9e3779b97f4a7c15;
  const uint32_t bits[] = {static_cast<uint32_t>(mixed), static_cast<uint32_t>(mixed >> 32)};
  float ends[2];
  memcpy(ends, bits, sizeof ends);
  const bool finite = std::isfinite(ends[0]) && std::isfinite(ends[1]);
  const float lo = std::fmin(0.0f, std::fmin(ends[0], ends[1]));
  const float hi = std::fmax(0.0f, std::fmax(ends[0], ends[1]));
  const RowKind kind = i % 2 ? RowKind::bounded : RowKind::any;
  const bool unsigned8 = i % 4 < 2;
  Quantized q{quantizer(lo, hi, finite, kind, unsigned8, unsigned8 ? 255 : 20011), {}};
  if (finite) {
    q.at[0] = q.by(lo);
    q.at[1] = q.by(hi);
    q.at[2] = q.by(0.5f * lo + 0.5f * hi);
  }
  return q;
}

__global__ void all_quantized(Quantized *out) {
  const uint64_t i = uint64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < kFloats)
    out[i] = quantized_at(i);
}

TEST(quantizers_on_a_device) {
  Quantized *on_device = nullptr;
  CHECK(cudaMalloc(&on_device, kFloats * sizeof(Quantized)) == cudaSuccess);
  all_quantized<<<(kFloats + kThreads - 1) / kThreads, kThreads>>>(on_device);
  std::vector<Quantized> found(kFloats);
  CHECK(cudaMemcpy(found.data(), on_device, kFloats * sizeof(Quantized), cudaMemcpyDeviceToHost) ==
        cudaSuccess);
  cudaFree(on_device);
  for (uint64_t i = 0; i < kFloats; ++i) {
    const Quantized expected = quantized_at(i);
    const bool right = same(found[i].by.scale, expected.by.scale) &&
                       found[i].by.zero_point == expected.by.zero_point &&
                       std::equal(found[i].at, found[i].at + 3, expected.at);
    if (!right)
      check::fail(__FILE__, __LINE__, "row " + std::to_string(i));
  }
}

} // namespace
} // namespace lstm_fastkernels
