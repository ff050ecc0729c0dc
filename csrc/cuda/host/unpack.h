// Canonical tensors from the packed form for CUDA devices: unpacking.h says what comes back.
#pragma once

#include <cstddef>
#include <vector>

#include "lstm_fastkernels/api.h"
#include "weights/unpacking.h"

namespace lstm_fastkernels {
namespace cuda {

// As unpack_stack. `packed` is a copy in host memory, aligned to 16 bytes, that must live as long;
// check_packed checks it first, with its own header.
LSTM_FASTKERNELS_API std::vector<UnpackedTensor> unpack(const void *packed, size_t bytes);

} // namespace cuda
} // namespace lstm_fastkernels
