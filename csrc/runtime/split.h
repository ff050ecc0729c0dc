// How a call is split over threads: by directions, by ranges of rows, and then by teams that share
// the matrices.
#pragma once

#include "lstm_fastkernels/lstm.h"
#include "weights/packed.h"

namespace lstm_fastkernels {

// Below this many products a call, some 200 microseconds, waking another thread costs more than it
// brings.
constexpr int64_t kProductsWorthAThread = int64_t{1} << 25;

// Below this many products from meeting to meeting and member of a team, meeting costs more than
// sharing brings.
constexpr int64_t kProductsWorthAMember = int64_t{1} << 16;
// The products for one row of weights that a core's L2 holds, with room for all else. Where a layer
// has more, its weights are shared out before rows are.
constexpr int64_t kProductsHeld = int64_t{1} << 19;
// How many teams a call may have.
constexpr int64_t kMostTeams = 16;

struct Split {
  int64_t products; // of the whole call
  int64_t ranges;   // of rows, each with all directions
  int64_t members;  // of a team, which runs a range of rows in one direction
  int threads;      // active, at most
};

// Of a call with at least one row, whose numbers are in range.
Split split_of(const PackedStack &stack, const LstmArguments &arguments);

} // namespace lstm_fastkernels
