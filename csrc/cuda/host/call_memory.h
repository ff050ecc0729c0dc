// Device memory of a call beside its arguments'.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/host/device_stack.h"
#include "cuda/host/timeline.h"
#include "cuda/kernels/device_types.h"
#include "cuda/kernels/rows.h"
#include "lstm_fastkernels/lstm.h"

namespace lstm_fastkernels {
namespace cuda {

constexpr int64_t kWorkspaceAlignment = 256;

// One layer and direction between its steps.
struct State {
  float *c = nullptr;
  float *cell_output = nullptr; // o tanh(c)
  float *h = nullptr;           // the output: cell_output, or its projection
  int64_t units_stride = 0, h_stride = 0;
  // h, as read and as written by a step, taking turns; only the first where a projection stands
  // between writing and reading.
  QuantizedRows quantized[2];
  float *first_scales = nullptr; // of h0
  QuantizedRows unprojected;
};

// For one of the directions, or layers, that run at the same time, with all rows.
struct Slot {
  QuantizedRows input; // of a chunk of steps
  float *gates = nullptr;
  device::Words4 *packets = nullptr;
  uint32_t epoch = 0; // steps that went through them
};

// Rows of a chunk where so many layers run side by side. Input products fill about 32 MB, so that
// they mostly stay in L2 and memory does not grow with the sequence. Where the steps may be
// persistent, a chunk has at least 64 of them, since each launch reads the weights first; layers
// side by side take an eighth of the sequence at most, since each starts a chunk after the one
// below it.
int64_t chunk_rows_for(const PackedStack &stack, const LstmArguments &arguments,
                       const Timeline &timeline, int side_by_side);

constexpr int64_t kPacketsOfARow = 64; // that are cleared together

struct CallMemory {
  // At `base`; null: only counts the bytes. Chunks of chunk_rows, or of more where a time step
  // has more.
  CallMemory(const PackedStack &stack, const LstmArguments &arguments, const Schedule &schedule,
             const Timeline &timeline, int side_by_side, int64_t chunk_rows, void *base);

  // [layer * num_directions + direction]. Two directions go through one layer after the other:
  // layers then have the same memory.
  State &state(int64_t index) { return states[static_cast<size_t>(index) % states.size()]; }
  // What a layer gives to the next one.
  float *after(int64_t layer) const { return between[static_cast<size_t>(layer) % between.size()]; }

  int64_t bytes = 0;
  int64_t *starts = nullptr, *order = nullptr; // the schedule's, where it has them
  int64_t chunk_rows = 0;
  std::vector<State> states;
  std::vector<Slot> slots;
  std::vector<float *> between;
  device::Words4 *packets = nullptr; // of all slots, whole rows of kPacketsOfARow each
  int64_t num_packets = 0;           // all
};

} // namespace cuda
} // namespace lstm_fastkernels
