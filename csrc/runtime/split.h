// How a call is split over threads: by directions, by ranges of rows, and then by teams that share
// the matrices or by layers that run at once.
#pragma once

#include "lstm_fastkernels/lstm.h"
#include "weights/packed.h"

namespace lstm_fastkernels {

// Below this many products a call, some 200 microseconds, waking another thread costs more than it
// brings.
constexpr int64_t kProductsWorthAThread = int64_t{1} << 25;
// Where calls follow each other so closely that it is still awake.
constexpr int64_t kProductsWorthAnAwakeThread = int64_t{1} << 20;

// Below this many products from meeting to meeting and member of a team, meeting costs more than
// sharing brings.
constexpr int64_t kProductsWorthAMember = int64_t{1} << 16;
// The products for one row of weights that a core's L2 holds, with room for all else. Where a layer
// has more, its weights are shared out before rows are.
constexpr int64_t kProductsHeld = int64_t{1} << 19;
// How many teams, or ranges whose layers run at once, a call may have.
constexpr int64_t kMostTeams = 16;

// Layers that run at once go through a sequence in about so many chunks: the last layer waits for
// the first ones of all below. But a chunk has so many rows at least, where the sequence has.
constexpr int64_t kChunksOfWavefront = 16;
constexpr int64_t kShortChunkRows = 4;

struct Split {
  int64_t products = 0; // of the whole call
  int64_t ranges = 1;   // of rows, each with all directions
  int64_t members = 1;  // of a team, which runs a range of rows in one direction
  int threads = 1;      // active, at most
  int64_t layers = 1;   // that run at once, each on a thread; then a team has one member
};

// Of a call with at least one row, whose numbers are in range. follows_closely() is asked once
// where others may help.
Split split_of(const PackedStack &stack, const LstmArguments &arguments, bool (*follows_closely)());

} // namespace lstm_fastkernels
