// A call's launches: for each chunk of time steps and layer a few that prepare it, then one for
// each step, or one for all of them. Both directions of a layer share their launches.
#pragma once

#include <cstdint>
#include <vector>

#include "device_stack.h"
#include "persistent.h"
#include "schedule.h"

namespace lstm_fastkernels {
namespace cuda {

// Steps are taken in chunks whose input products fill about so many bytes, so that memory does not
// grow with the sequence and they mostly stay in L2: 32 MB, or more where a batch may be
// persistent, since each launch reads the weights first and should have kFewestChunkSteps steps.
constexpr int64_t kFewestChunkSteps = 64;
int64_t chunk_bytes_for(const PackedStack &stack, int64_t batch);

struct Plan {
  int64_t chunk_bytes = 0; // 0: chunk_bytes_for the call
  std::vector<Choice> layers;
  bool single_step = false; // a launch for each layer; for one time step where single_step_fits
  // For those that are persistent.
  uint32_t *failed = nullptr;
  uint64_t patience_ns = uint64_t{5'000'000'000};
};

// Device memory that run() needs with any choices, aligned to 256 bytes.
int64_t workspace_of(const PackedStack &stack, const LstmArguments &arguments,
                     const Schedule &schedule, int64_t chunk_bytes = 0);

// Enqueues a call with at least one row on the current device. Throws Error where the queue's
// workspace does not do.
void run(const PackedStack &stack, const LstmArguments &arguments, const Schedule &schedule,
         const Plan &plan, const Queue &queue);

} // namespace cuda
} // namespace lstm_fastkernels
