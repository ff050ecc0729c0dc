// What the module _eager calls, by address: a packed LSTM without torch's dispatcher.
#pragma once

#include <cstdint>

#include "lstm_fastkernels/lstm.h"

namespace lstm_fastkernels {

// Functions throw nothing.
struct EagerFunctions {
  bool (*grad_enabled)();
  // Of packed weights for the CPU that the op has run before; false for any others.
  bool (*shape_of)(const void *packed, int64_t bytes, LstmShape *shape, bool *takes_ids);
  // As lstm_forward, on as many threads as torch has; false where it fails or they are forgotten.
  bool (*run)(const void *packed, int64_t bytes, LstmArguments arguments);
};

} // namespace lstm_fastkernels

extern "C" __attribute__((visibility("default"))) const void *lfk_eager_functions();
