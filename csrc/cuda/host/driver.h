// Runs a call.
#pragma once

#include <cstdint>

#include "common/schedule.h"
#include "cuda/host/device_stack.h"
#include "cuda/host/plan.h"
#include "lstm_fastkernels/cuda.h"

namespace lstm_fastkernels {
namespace cuda {

// Bytes of device memory that run() needs with any plan, aligned to 256 bytes.
int64_t workspace_of(const PackedStack &stack, const LstmArguments &arguments,
                     const Schedule &schedule, int64_t chunk_rows = 0);

// Enqueues a call with at least one row on the current device. Throws Error if the queue's
// workspace is too small or misaligned.
void run(const PackedStack &stack, const LstmArguments &arguments, const Schedule &schedule,
         const Plan &plan, const Queue &queue);

} // namespace cuda
} // namespace lstm_fastkernels
