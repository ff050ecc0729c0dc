// The plain path: a launch for each time step, and a few for each chunk of steps. Correct for
// everything, fast where launches are no matter. Both directions of a layer share their launches.
#pragma once

#include <cstdint>

#include "device_stack.h"
#include "schedule.h"

namespace lstm_fastkernels {
namespace cuda {

// Steps are taken in chunks whose input products fill about this many bytes, so that memory does
// not grow with the sequence and they mostly stay in L2.
constexpr int64_t kChunkBytes = int64_t{32} << 20;

// Device memory that run_plain needs, aligned to 256 bytes.
int64_t plain_workspace(const PackedStack &stack, const LstmArguments &arguments,
                        const Schedule &schedule, int64_t chunk_bytes = kChunkBytes);

// Enqueues a call with at least one row on the current device.
void run_plain(const PackedStack &stack, const LstmArguments &arguments, const Schedule &schedule,
               int64_t chunk_bytes, void *workspace, void *stream);

} // namespace cuda
} // namespace lstm_fastkernels
