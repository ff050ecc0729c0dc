// The functions of numerics.h give the same bits on a device as on the CPU.
#include <cuda_runtime.h>

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

} // namespace
} // namespace lstm_fastkernels
