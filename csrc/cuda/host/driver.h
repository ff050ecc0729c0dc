// A call's launches: for each chunk of time steps and layer a few that prepare it, then one for
// each step, or one for all of them. Both directions of a layer share their launches, and so do
// layers whose steps run side by side.
#pragma once

#include <cstdint>
#include <vector>

#include "common/schedule.h"
#include "cuda/host/device_stack.h"
#include "cuda/kernels/persistent.h"

namespace lstm_fastkernels {
namespace cuda {

struct Plan {
  int64_t chunk_rows = 0; // of all time steps' that are taken together; 0: chunk_rows_for the call
  std::vector<Choice> layers;
  bool single_step = false; // a launch for each layer; for one time step where single_step_fits
  // For those that are persistent.
  uint32_t *failed = nullptr;
  uint64_t patience_ns = uint64_t{5'000'000'000};
};

// Of `most` layers that may run side by side, how many should: one, where a call is too short for
// them to have work at the same time.
int useful_side_by_side(const PackedStack &stack, const LstmArguments &arguments,
                        const Schedule &schedule, int most);

// Device memory that run() needs with any choices, aligned to 256 bytes.
int64_t workspace_of(const PackedStack &stack, const LstmArguments &arguments,
                     const Schedule &schedule, int64_t chunk_rows = 0);

// Enqueues a call with at least one row on the current device. Throws Error where the queue's
// workspace does not do.
void run(const PackedStack &stack, const LstmArguments &arguments, const Schedule &schedule,
         const Plan &plan, const Queue &queue);

} // namespace cuda
} // namespace lstm_fastkernels
