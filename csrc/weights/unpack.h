// Canonical tensors from the packed form for the CPU: unpacking.h says what comes back.
#pragma once

#include <vector>

#include "weights/packed.h"
#include "weights/unpacking.h"

namespace lstm_fastkernels {

// As unpack_stack.
std::vector<UnpackedTensor> unpack(const PackedStack &stack);

} // namespace lstm_fastkernels
