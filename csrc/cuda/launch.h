// device.h on the GPU: the host's side.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "device.h"
#include "lstm_fastkernels/error.h"

namespace lstm_fastkernels {
namespace device {

constexpr size_t kUnaskedSharedBytes = 48 * 1024; // what a kernel may have without asking for it
constexpr int kPortableCluster = 8;

inline void check(cudaError_t status, const char *what) {
  if (status == cudaSuccess)
    return;
  cudaGetLastError(); // or a later call that has nothing to do with it would report it
  throw Error(ErrorCode::device, std::string(what) + ": " + cudaGetErrorString(status));
}

inline int exchange_device(int device) {
  int before = 0;
  check(cudaGetDevice(&before), "asking for the current device");
  if (device != before)
    check(cudaSetDevice(device), "choosing a device");
  return before;
}

template <class P>
void launch(void (*kernel)(P), const Launch &shape, void *stream, const P &parameters) {
  const auto allow = [&](cudaFuncAttribute attribute, int value) {
    check(cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel), attribute, value),
          "preparing a kernel");
  };
  if (shape.shared_bytes > kUnaskedSharedBytes)
    allow(cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared_bytes));
  if (shape.cluster > kPortableCluster)
    allow(cudaFuncAttributeNonPortableClusterSizeAllowed, 1);

  cudaLaunchAttribute attributes[2];
  cudaLaunchConfig_t configuration = {};
  configuration.gridDim =
      dim3(static_cast<unsigned>(shape.grid.x), static_cast<unsigned>(shape.grid.y),
           static_cast<unsigned>(shape.grid.z));
  configuration.blockDim = dim3(static_cast<unsigned>(shape.threads));
  configuration.dynamicSmemBytes = shape.shared_bytes;
  configuration.stream = static_cast<cudaStream_t>(stream);
  configuration.attrs = attributes;
  if (shape.cluster > 1) {
    cudaLaunchAttribute &attribute = attributes[configuration.numAttrs++];
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = static_cast<unsigned>(shape.cluster);
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  }
  if (shape.cooperative) {
    cudaLaunchAttribute &attribute = attributes[configuration.numAttrs++];
    attribute.id = cudaLaunchAttributeCooperative;
    attribute.val.cooperative = 1;
  }
  void *arguments[] = {const_cast<P *>(&parameters)};
  check(cudaLaunchKernelExC(&configuration, reinterpret_cast<const void *>(kernel), arguments),
        "launching a kernel");
}

} // namespace device
} // namespace lstm_fastkernels
