// The launches that run a layer's steps. The directions of a layer share their launches, and so do
// layers whose steps run side by side.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/host/call.h"

namespace lstm_fastkernels {
namespace cuda {

// Between the caller's states and those of a layer.
void load_layer(const Call &call, int64_t layer);
void store_layer(const Call &call, int64_t layer);

// Chunks of steps, of layers of one group or of the directions of one layer: quantizes and
// multiplies their inputs, then runs the steps by one launch, or by one for each.
void run_chunk(const Call &call, const std::vector<Part> &parts);

// A layer of a call of one time step, from the caller's states to the caller's.
void run_single_step(const Call &call, int64_t layer);

} // namespace cuda
} // namespace lstm_fastkernels
