// device.h on the GPU: host code.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "cuda/kernels/device.h"
#include "lstm_fastkernels/error.h"

namespace lstm_fastkernels {
namespace device {

constexpr size_t kDefaultSharedBytes = 48 * 1024; // more must be asked for
constexpr int kPortableCluster = 8;

inline void check(cudaError_t status, const char *what) {
  if (status == cudaSuccess)
    return;
  cudaGetLastError(); // clears it, or an unrelated later call would report it
  throw Error(ErrorCode::device, std::string(what) + ": " + cudaGetErrorString(status));
}

inline int current_device() {
  int device = 0;
  check(cudaGetDevice(&device), "asking for the current device");
  return device;
}

inline int exchange_device(int device) {
  const int before = current_device();
  if (device != before)
    check(cudaSetDevice(device), "choosing a device");
  return before;
}

inline int attribute_of(int device, cudaDeviceAttr attribute) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, attribute, device), "asking what a device can do");
  return value;
}

inline int most_shared_bytes(int device) {
  return attribute_of(device, cudaDevAttrMaxSharedMemoryPerBlockOptin);
}

inline Limits limits_of(int device) {
  Limits limits;
  limits.multiprocessors = attribute_of(device, cudaDevAttrMultiProcessorCount);
  limits.shared_bytes = static_cast<size_t>(most_shared_bytes(device));
  limits.clusters = attribute_of(device, cudaDevAttrComputeCapabilityMajor) >= 9;
  return limits;
}

inline SharedWord allocate_shared_word(int device) {
  const int before = exchange_device(device);
  // Allowed during a capture: this allocation is no part of the graph.
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  check(cudaThreadExchangeStreamCaptureMode(&mode), "leaving a capture");
  void *host = nullptr, *on_device = nullptr;
  cudaError_t status =
      cudaHostAlloc(&host, sizeof(uint32_t), cudaHostAllocMapped | cudaHostAllocPortable);
  if (status == cudaSuccess) {
    *static_cast<uint32_t *>(host) = 0;
    status = cudaHostGetDevicePointer(&on_device, host, 0);
  }
  check(cudaThreadExchangeStreamCaptureMode(&mode), "going back to a capture");
  exchange_device(before);
  check(status, "allocating a word of host memory");
  return {static_cast<uint32_t *>(host), static_cast<uint32_t *>(on_device)};
}

// A launch's attributes, and the kernel attributes that it needs. The latter are the same for every
// launch of a kernel, since other threads may launch it in other sizes.
class Configuration {
public:
  Configuration(const void *kernel, const Launch &shape, void *stream) {
    const auto allow = [&](cudaFuncAttribute attribute, int value) {
      check(cudaFuncSetAttribute(kernel, attribute, value), "preparing a kernel");
    };
    if (shape.shared_bytes > kDefaultSharedBytes)
      allow(cudaFuncAttributeMaxDynamicSharedMemorySize, most_shared_bytes(current_device()));
    if (shape.cluster > kPortableCluster)
      allow(cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
    config_.gridDim = dim3(static_cast<unsigned>(shape.grid.x), static_cast<unsigned>(shape.grid.y),
                           static_cast<unsigned>(shape.grid.z));
    config_.blockDim = dim3(static_cast<unsigned>(shape.threads));
    config_.dynamicSmemBytes = shape.shared_bytes;
    config_.stream = static_cast<cudaStream_t>(stream);
    config_.attrs = attributes_;
    if (shape.cluster > 1) {
      cudaLaunchAttribute &attribute = attributes_[config_.numAttrs++];
      attribute.id = cudaLaunchAttributeClusterDimension;
      attribute.val.clusterDim.x = static_cast<unsigned>(shape.cluster);
      attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    }
    if (shape.cooperative) {
      cudaLaunchAttribute &attribute = attributes_[config_.numAttrs++];
      attribute.id = cudaLaunchAttributeCooperative;
      attribute.val.cooperative = 1;
    }
  }
  Configuration(const Configuration &) = delete;
  Configuration &operator=(const Configuration &) = delete;

  const cudaLaunchConfig_t &get() const { return config_; }

private:
  cudaLaunchConfig_t config_ = {};
  cudaLaunchAttribute attributes_[2] = {};
};

template <class P> int most_at_once(void (*kernel)(P), const Launch &shape, int device) {
  const void *const function = reinterpret_cast<const void *>(kernel);
  const Configuration configuration(function, shape, nullptr);
  int most = 0;
  if (shape.cluster > 1) {
    const cudaError_t status =
        cudaOccupancyMaxActiveClusters(&most, function, &configuration.get());
    if (status == cudaErrorInvalidClusterSize) {
      cudaGetLastError();
      return 0;
    }
    check(status, "asking how many clusters fit");
    return most;
  }
  check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&most, function, shape.threads,
                                                      shape.shared_bytes),
        "asking how many blocks fit");
  return most * limits_of(device).multiprocessors;
}

template <class P>
void launch(void (*kernel)(P), const Launch &shape, void *stream, const P &parameters) {
  const void *const function = reinterpret_cast<const void *>(kernel);
  const Configuration configuration(function, shape, stream);
  void *arguments[] = {const_cast<P *>(&parameters)};
  check(cudaLaunchKernelExC(&configuration.get(), function, arguments), "launching a kernel");
}

} // namespace device
} // namespace lstm_fastkernels
