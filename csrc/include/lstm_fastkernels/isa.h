// Instruction sets, by name: what this machine can run and what the kernels use. Outputs are
// bit-identical on all of them.
#pragma once

#include <string_view>
#include <vector>

#include "lstm_fastkernels/api.h"

namespace lstm_fastkernels {

// What this build, this machine and LSTM_FASTKERNELS_ISA allow: "scalar", then better ones: "avx2",
// "avx512vnni" and "amx" on x86-64, "neon" and "neon_dotprod" on AArch64. The variable names the
// best one allowed; an unknown name throws Error.
LSTM_FASTKERNELS_API std::vector<std::string_view> supported_isas();

// The one in use: the last of supported_isas() unless set_isa chose another.
LSTM_FASTKERNELS_API std::string_view active_isa();

// Chooses one of supported_isas() for the whole process, from the next call on. Throws Error for
// any other name.
LSTM_FASTKERNELS_API void set_isa(std::string_view name);

} // namespace lstm_fastkernels
