// Canonical tensors from the packed form for the CPU: packing backwards. What it was made from
// comes back bit by bit, but for blocks: those of 8 x 4 without a weight other than zero were not
// packed. They come back as zeros, and a block of the caller's that has no other is left out.
#pragma once

#include <functional>
#include <vector>

#include "weights/packed.h"

namespace lstm_fastkernels {

// A canonical tensor that can be made.
struct UnpackedTensor {
  TensorView view;                   // without data
  std::function<void(void *)> write; // fills view.bytes of memory, at any alignment
};

// Those of all matrices in the order of matrix_names, then the biases, which are zeros where the
// packed form was made without; named as CanonicalTensors has them. The packed bytes must live as
// long.
std::vector<UnpackedTensor> unpack(const PackedStack &stack);

} // namespace lstm_fastkernels
