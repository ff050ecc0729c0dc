// How a call is split over threads: by directions, and by ranges of rows.
#pragma once

#include "lstm_fastkernels/lstm.h"
#include "weights/packed.h"

namespace lstm_fastkernels {

// Below this many products a call, some 200 microseconds, waking another thread costs more than it
// brings.
constexpr int64_t kProductsWorthAThread = int64_t{1} << 25;

struct Split {
  int64_t products; // of the whole call
  int64_t ranges;   // of rows, each with all directions
  int threads;      // active, at most
};

// Of a call with at least one row.
Split split_of(const PackedStack &stack, const LstmArguments &arguments);

} // namespace lstm_fastkernels
