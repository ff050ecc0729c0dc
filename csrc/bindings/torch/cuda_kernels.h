// cuda.h for the ops.
#pragma once

#include <cstdint>
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

// `packed` is a contiguous byte vector on a CUDA device.
LstmShape cuda_packed_shape(const Tensor &packed, const Head &head);

// Runs on the current stream of the device of `packed`; the workspace is torch's.
void run_on_cuda(const Tensor &packed, const Head &head, const LstmArguments &arguments);

// cuda::explain for the device of `packed`.
std::vector<std::string> explain_on_cuda(const Tensor &packed, const Head &head,
                                         const LstmArguments &arguments);

} // namespace lstm_fastkernels
