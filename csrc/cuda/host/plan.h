// How a call runs: the way of each layer's steps, and how many steps at a time.
#pragma once

#include <cstdint>
#include <vector>

#include "common/schedule.h"
#include "cuda/host/choice.h"
#include "cuda/host/device_stack.h"

namespace lstm_fastkernels {
namespace cuda {

struct Plan {
  int64_t chunk_rows = 0; // rows of a chunk of time steps; 0: chunk_rows_for the call
  std::vector<Choice> layers;
  bool single_step = false; // one launch a layer, for calls of one time step
  // For persistent layers:
  uint32_t *failed = nullptr;
  uint64_t patience_ns = uint64_t{5'000'000'000};
};

// The plan expected to be fastest on a device.
Plan make_plan(const PackedStack &stack, const LstmArguments &arguments, const Schedule &schedule,
               int device);

// Neighbouring layers that run side by side, each a chunk of steps behind the one below.
struct LayerGroup {
  int64_t first, count;
};
std::vector<LayerGroup> groups_of(const std::vector<Choice> &layers);

} // namespace cuda
} // namespace lstm_fastkernels
