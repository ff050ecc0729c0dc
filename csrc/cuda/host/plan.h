// What a call runs: how each layer's steps, and how many of them at a time.
#pragma once

#include <cstdint>
#include <vector>

#include "common/schedule.h"
#include "cuda/host/choice.h"
#include "cuda/host/device_stack.h"

namespace lstm_fastkernels {
namespace cuda {

struct Plan {
  int64_t chunk_rows = 0; // of all time steps' that are taken together; 0: chunk_rows_for the call
  std::vector<Choice> layers;
  bool single_step = false; // a launch for each layer; for one time step
  // For those that are persistent.
  uint32_t *failed = nullptr;
  uint64_t patience_ns = uint64_t{5'000'000'000};
};

// What is taken to be the fastest on a device.
Plan make_plan(const PackedStack &stack, const LstmArguments &arguments, const Schedule &schedule,
               int device);

// Neighbouring layers whose steps run side by side, each a chunk of steps behind the one below it.
struct Group {
  int64_t first, count;
};
std::vector<Group> groups_of(const std::vector<Choice> &layers);

} // namespace cuda
} // namespace lstm_fastkernels
