// Packed bytes that someone changed: refused, or read within bounds and multiplied the same way by
// every instruction set.
#pragma once

#include <cstdint>
#include <vector>

#include "stack.h"

namespace lstm_fastkernels {

// Small stacks of every kind of packed matrix: dense and in blocks, each precision, projections,
// both directions, several layers.
std::vector<SourceStack> kinds_of_stacks();

// Whether lstm_forward takes the bytes. If so, runs them with each instruction set and compares.
bool runs_the_same_everywhere(const std::vector<uint8_t> &packed);

} // namespace lstm_fastkernels
