// What the module _eager calls, by address: a packed LSTM without torch's dispatcher.
#pragma once

#include <cstdint>

#include "lstm_fastkernels/lstm.h"

namespace lstm_fastkernels {

// A packed LSTM of the ops, which alone look into it.
struct HeldLstm {
  void *words[2];
};

// Functions throw nothing.
struct EagerFunctions {
  // Packed weights for the CPU that the op has run before, until they are dropped; false for any
  // others.
  bool (*hold)(const void *packed, int64_t bytes, HeldLstm *lstm, LstmShape *shape,
               bool *takes_ids);
  void (*drop)(HeldLstm *lstm);
  // As lstm_forward, on as many threads as torch has; false where it fails.
  bool (*run)(const HeldLstm *lstm, LstmArguments arguments);
};

} // namespace lstm_fastkernels

extern "C" {
__attribute__((visibility("default"))) const void *lfk_eager_functions();
// The version, as Python has it, of the one torch that _eager can be loaded with.
__attribute__((visibility("default"))) const char *lfk_built_for_torch();
}
