#include "cuda/host/plan.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "cuda/host/call_memory.h"
#include "cuda/host/timeline.h"
#include "cuda/kernels/devices.h"
#include "cuda/kernels/single_step.h"

namespace lstm_fastkernels {
namespace cuda {
namespace {

// The environment can disable persistent kernels.
bool persistent_allowed() {
  const char *const value = std::getenv("LSTM_FASTKERNELS_PERSISTENT");
  return !value || std::string_view(value) != "0";
}

// Whether the only step of each layer can be one launch.
bool single_step_fits(const PackedStack &stack, const device::Limits &limits) {
  return !stack.shape.proj_size &&
         std::all_of(stack.layers.begin(), stack.layers.end(), [&](const PackedLayer &layer) {
           return !layer.ih.is_low_rank() && !layer.hh.is_low_rank() &&
                  single_step_shared_bytes(layer.ih, layer.hh) <= limits.shared_bytes;
         });
}

// How many layers, of at most `most`, should run side by side: one if the call is too short for
// them to overlap.
int useful_side_by_side(const PackedStack &stack, const LstmArguments &a, const Schedule &schedule,
                        int most) {
  const Timeline timeline(schedule, a.time_steps, stack.shape.num_directions);
  return most > 1 && chunk_rows_for(stack, a, timeline, most) < timeline.all_rows() ? most : 1;
}

} // namespace

Plan make_plan(const PackedStack &stack, const LstmArguments &a, const Schedule &schedule,
               int device) {
  Plan plan;
  plan.failed = failure_word(device);
  const LstmShape &shape = stack.shape;
  const device::Limits &limits = limits_of(device);
  // All blocks read all of h0, so it must not be overwritten.
  const bool in_place = a.h0 && (a.h_n == a.h0 || a.c_n == a.c0);
  plan.single_step = a.time_steps == 1 && !in_place && single_step_fits(stack, limits);
  const int directions = static_cast<int>(shape.num_directions);
  const bool allowed = persistent_allowed();
  const int most = most_side_by_side(stack, a.batch_size, a.time_steps);
  Choice refused;
  refused.reason = "LSTM_FASTKERNELS_PERSISTENT is 0";
  for (int64_t layer = 0; layer < shape.num_layers; ++layer) {
    const PackedLayer *const layers = &stack.layers[static_cast<size_t>(layer * directions)];
    const auto placed = [&](const PersistentShape &s) {
      return fits(s, *layers, directions, device);
    };
    Choice choice =
        allowed ? choose(shape, layers, a.batch_size, a.time_steps, limits, placed) : refused;
    if (choice.persistent && most > 1)
      choice.side_by_side = useful_side_by_side(
          stack, a, schedule, std::min(most, at_once(choice.shape, *layers, device)));
    plan.layers.push_back(choice);
  }
  return plan;
}

std::vector<LayerGroup> groups_of(const std::vector<Choice> &layers) {
  std::vector<LayerGroup> groups;
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    const auto joins = [&](const Choice &below, const Choice &choice) {
      return below.persistent && choice.persistent && below.shape == choice.shape &&
             groups.back().count < choice.side_by_side;
    };
    if (layer > 0 && joins(layers[layer - 1], layers[layer]))
      ++groups.back().count;
    else
      groups.push_back({static_cast<int64_t>(layer), 1});
  }
  return groups;
}

} // namespace cuda
} // namespace lstm_fastkernels
