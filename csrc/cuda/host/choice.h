// How a layer's steps are run: persistent, in the first shape that fits, or else a launch each.
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
  int side_by_side = 1; // layers of that shape that may be at work at the same time
};

// Rows of each range of so many; 0 where the last range would have none.
int rows_of_range(int64_t batch, int ranges);

// Room for the packets of a direction, whatever the shape.
int64_t most_packets(const Matrix &hh, int64_t batch);

// Whether such a layer is persistent where there is a shape that fits.
bool may_be_persistent(const DeviceShape &shape, int64_t batch, int64_t time_steps);

// Layers of a stack that may run side by side on any device.
int most_side_by_side(const DeviceShape &shape, int64_t batch, int64_t time_steps);

// All shapes that there are for a layer with a batch of so many rows, what is taken to be the
// fastest first; `layers` has its directions.
std::vector<PersistentShape> possible_shapes(const DeviceShape &shape, const PackedLayer *layers,
                                             int64_t batch, const device::Limits &limits);

// A shape in words.
std::string describe(const PersistentShape &shape);

// For so many time steps, the first of them that fits.
Choice choose(const DeviceShape &shape, const PackedLayer *layers, int64_t batch,
              int64_t time_steps, const device::Limits &limits,
              const std::function<bool(const PersistentShape &)> &fits);

// How many directions or layers a launch of a shape may have so that all their ranges are at work
// at once.
int at_once(const PersistentShape &shape, const PackedLayer &layer, int device);

// Whether that is enough: the blocks of a direction and range wait for each other.
bool fits(const PersistentShape &shape, const PackedLayer &layer, int directions, int device);

} // namespace cuda
} // namespace lstm_fastkernels
