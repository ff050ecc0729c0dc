// The launches that run a layer's steps. The directions of a layer share launches, as do layers
// that run side by side.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/host/call.h"

namespace lstm_fastkernels {
namespace cuda {

// Copy a layer's states from and to the caller.
void load_layer(const Call &call, int64_t layer);
void store_layer(const Call &call, int64_t layer);

// Runs chunks of steps, one for each part: the layers of a group, or the directions of a layer.
// Quantizes the inputs, multiplies them by W_ih, then runs the steps with one launch, or with one
// each.
void run_chunk(const Call &call, const std::vector<Part> &parts);

// Runs a layer of a call of one time step, on the caller's states.
void run_single_step(const Call &call, int64_t layer);

} // namespace cuda
} // namespace lstm_fastkernels
