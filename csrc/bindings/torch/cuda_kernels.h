// cuda.h for the ops.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings/torch/tensors.h"
#include "lstm_fastkernels/lstm.h"

namespace lstm_fastkernels {

// Whether there are CUDA kernels in this build; without them, all that follow throw.
bool cuda_built();
void require_cuda();

// The head of a packed stack as words.
using Head = std::vector<int64_t>;

// Both lie on the CPU.
std::pair<Tensor, Head> pack_for_cuda(const LstmShape &shape, const LayerWeights *layers);

namespace cuda {
class DeviceStack;
}

// A packed stack on a CUDA device, checked.
class CudaStack {
public:
  // `packed` is a contiguous byte vector on a CUDA device and must live as long.
  CudaStack(const Tensor &packed, const Head &head);

  const LstmShape &shape() const;
  // Runs on the device's current stream; the workspace is torch's.
  void run(const LstmArguments &arguments) const;
  std::vector<std::string> explain(const LstmArguments &arguments) const;

private:
  Device device_;
  std::shared_ptr<const cuda::DeviceStack> stack_;
};

} // namespace lstm_fastkernels
