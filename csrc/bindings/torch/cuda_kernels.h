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

// The header of a packed stack as words.
using Header = std::vector<int64_t>;

// Both lie on the CPU.
std::pair<Tensor, Header> pack_for_cuda(const LstmShape &shape, const CellWeights *cells);

// `packed`, in what follows, is a contiguous byte vector on a CUDA device.

LstmShape cuda_packed_shape(const Tensor &packed, const Header &header);

// Runs on the current stream of the device of `packed`; the workspace is torch's.
void run_on_cuda(const Tensor &packed, const Header &header, const LstmArguments &arguments);

// What cuda::explain finds for the device of `packed`: a line for each layer, or a few words.
std::vector<std::string> describe_on_cuda(const Tensor &packed, const Header &header,
                                          const LstmArguments &arguments);
std::string brief_on_cuda(const Tensor &packed, const Header &header,
                          const LstmArguments &arguments);

} // namespace lstm_fastkernels
