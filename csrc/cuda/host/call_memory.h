// A call's device memory, except for its arguments'.
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

// Between the factors of low-rank matrices: what V gives, and what U reads.
struct Between {
  float *products = nullptr;
  QuantizedRows rows;
};

// The state of a layer and direction between its steps.
struct LayerState {
  float *c = nullptr;
  float *cell_output = nullptr; // o tanh(c)
  float *h = nullptr;           // the output: cell_output, or its projection
  int64_t units_stride = 0, h_stride = 0;
  QuantizedRows quantized_h;
  QuantizedRows quantized_cell_output; // with a projection
  Between between;                     // of hh and hr, one after the other
};

// Memory of one of the directions, or layers, that run concurrently.
struct Slot {
  QuantizedRows input; // of a chunk
  Between between;     // of ih
  float *gates = nullptr;
  device::Words4 *packets = nullptr;
  uint32_t epoch = 0; // steps that have used the packets
};

// Rows of a chunk when `side_by_side` layers run concurrently. Input products take about 32 MB:
// they mostly stay in L2, and memory does not grow with the sequence. If steps may be persistent, a
// chunk has at least 64, since each launch first reads the weights. For layers side by side a chunk
// is at most an eighth of the sequence, since each layer starts a chunk later than the one below.
int64_t chunk_rows_for(const PackedStack &stack, const LstmArguments &arguments,
                       const Timeline &timeline, int side_by_side);

constexpr int64_t kPacketsOfARow = 64; // cleared together, as a row

struct CallMemory {
  // At `base`; null: only counts the bytes. A chunk has chunk_rows rows, or one time step if that
  // has more.
  CallMemory(const PackedStack &stack, const LstmArguments &arguments, const Schedule &schedule,
             const Timeline &timeline, int side_by_side, int64_t chunk_rows, void *base);

  // [layer * num_directions + direction]. With two directions, layers run one after the other and
  // share their memory.
  LayerState &state(int64_t index) { return states[static_cast<size_t>(index) % states.size()]; }
  // A layer's output, the input of the next.
  float *after(int64_t layer) const { return between[static_cast<size_t>(layer) % between.size()]; }

  int64_t bytes = 0;
  int64_t *starts = nullptr, *order = nullptr; // the schedule's, unless empty
  int64_t chunk_rows = 0;
  std::vector<LayerState> states;
  std::vector<Slot> slots;
  std::vector<float *> between;
  device::Words4 *packets = nullptr; // of all slots, each a multiple of kPacketsOfARow
  int64_t num_packets = 0;           // all
};

} // namespace cuda
} // namespace lstm_fastkernels
