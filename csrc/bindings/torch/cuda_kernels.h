// cuda.h for the ops.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings/torch/tensors.h"
#include "lstm_fastkernels/lstm.h"
#include "weights/unpacking.h"

namespace lstm_fastkernels {

// Whether there are CUDA kernels in this build; without them, all that follow throw.
bool cuda_built();
void require_cuda();

// The header of a packed stack as words.
using Header = std::vector<int64_t>;

// Both lie on the CPU.
std::pair<Tensor, Header> pack_for_cuda(const LstmShape &shape, const CellWeights *cells);
// `packed` must live as long.
std::vector<UnpackedTensor> unpack_from_cuda(const Tensor &packed);

namespace cuda {
class DeviceStack;
}

// A packed stack on a CUDA device, checked.
class CudaStack {
public:
  // `packed` is a contiguous byte vector on a CUDA device and must live as long. Copies it to the
  // host to check it, and so waits for the device: not while a stream is captured.
  CudaStack(const Tensor &packed, const Header &header);

  const LstmShape &shape() const;
  // Runs on the device's current stream; the workspace is torch's.
  void run(const LstmArguments &arguments) const;
  // What cuda::explain finds: a line for each layer, or a few words on the steps.
  std::vector<std::string> describe(const LstmArguments &arguments) const;
  std::string brief(const LstmArguments &arguments) const;

private:
  Device device_;
  std::shared_ptr<const cuda::DeviceStack> stack_;
};

} // namespace lstm_fastkernels
