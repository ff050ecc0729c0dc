// How a layer's steps run: persistent, in the first shape that fits, or with launches for each
// step.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cuda/host/device_stack.h"
#include "cuda/kernels/device_types.h"
#include "cuda/kernels/persistent.h"
#include "lstm_fastkernels/lstm.h"

namespace lstm_fastkernels {
namespace cuda {

struct Choice {
  bool persistent = false;
  PersistentShape shape; // if persistent
  std::string reason;
  int side_by_side = 1; // layers of that shape that may run concurrently
};

// Rows of each of `ranges` ranges; 0 if the last one would be empty.
int rows_of_range(int64_t batch, int ranges);

// The most packets that a direction needs in any shape.
int64_t most_packets(const DeviceMatrix &hh, int64_t batch);

// Whether some layer is persistent if a shape fits.
bool may_be_persistent(const PackedStack &stack, int64_t batch, int64_t time_steps);

// The most layers of a stack that can run side by side on any device.
int most_side_by_side(const PackedStack &stack, int64_t batch, int64_t time_steps);

// All shapes for a layer and a batch, those expected to be fastest first; `layers` are its
// directions.
std::vector<PersistentShape> possible_shapes(const LstmShape &shape, const PackedLayer *layers,
                                             int64_t batch, const device::Limits &limits);

// Describes a shape in words.
std::string describe(const PersistentShape &shape);

// The first possible shape that fits.
Choice choose(const LstmShape &shape, const PackedLayer *layers, int64_t batch, int64_t time_steps,
              const device::Limits &limits,
              const std::function<bool(const PersistentShape &)> &fits);

// How many directions or layers a launch may have such that all their blocks are resident at once.
int at_once(const PersistentShape &shape, const PackedLayer &layer, int device);

// Whether that is enough for `directions`: the blocks of a direction and range wait for each other.
bool fits(const PersistentShape &shape, const PackedLayer &layer, int directions, int device);

} // namespace cuda
} // namespace lstm_fastkernels
