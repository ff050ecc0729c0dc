// Instruction sets: what this machine can run and what the kernels use.
#pragma once

#include <string_view>
#include <vector>

#include "lstm_fastkernels/api.h"

namespace lstm_fastkernels {

// In ascending order: each one includes those before it. Outputs are bit-identical on all of them.
enum class Isa { scalar = 0, avx2 = 1, avx512vnni = 2 };

// "scalar", "avx2" or "avx512vnni".
LSTM_FASTKERNELS_API std::string_view isa_name(Isa isa);

// What both this machine and LSTM_FASTKERNELS_ISA allow, lowest first. The variable can only lower
// the choice; an unknown value of it throws Error.
LSTM_FASTKERNELS_API std::vector<Isa> supported_isas();

// The instruction set in use: the highest supported one unless set_isa chose another.
LSTM_FASTKERNELS_API Isa active_isa();

// Chooses one of supported_isas() by name for the whole process; throws Error
// otherwise. Takes effect with the next call.
LSTM_FASTKERNELS_API void set_isa(std::string_view name);

} // namespace lstm_fastkernels
