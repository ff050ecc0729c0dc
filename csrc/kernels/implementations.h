// The implementations of the kernels. One is a namespace in a file or folder of its own, which
// defines `kImplementation`, and a line in the list of implementations.cpp.
#pragma once

#include <string_view>

#include "kernels/kernels.h"

namespace lstm_fastkernels {

struct Implementation {
  std::string_view name; // of the instruction set
  bool (*runs_here)();   // whether this machine has it
  Kernels kernels;
};

// By its name; throws Error for one that is not in supported_isas().
const Kernels &kernels(std::string_view isa);
// Of active_isa().
const Kernels &active_kernels();

} // namespace lstm_fastkernels
