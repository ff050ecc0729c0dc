// Packed weights and the canonical tensors beside them, as a file may have both: whether the one
// was made from the other.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lstm_fastkernels/weights.h"
#include "weights/packed.h"

namespace lstm_fastkernels {

// 64 bits of the tensors' names, dtypes, shapes and data, as 16 hexadecimal digits:
// docs/file_format.md says how. To notice changes, not attacks.
std::string hash_of(const std::map<std::string, TensorView> &tensors);

// The stack of `packed` where this library packs these tensors to it, with this shape and these
// precisions: it was made by this version for the CPU, and `hash` is the tensors'. Otherwise none.
// All that kernels will believe is checked: throws Error where the bytes are none that PackPlan
// writes, though the rest fits. The stack points into the bytes.
std::optional<PackedStack> packed_from(const void *packed, size_t bytes, const std::string &hash,
                                       const LstmShape &shape,
                                       const std::vector<Precision> &precisions,
                                       const std::map<std::string, TensorView> &tensors);

} // namespace lstm_fastkernels
