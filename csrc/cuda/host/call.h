// A call on the host: what its launches have in common, and the parts they are made of.
#pragma once

#include <cstdint>
#include <vector>

#include "common/plane.h"
#include "common/schedule.h"
#include "cuda/host/call_memory.h"
#include "cuda/host/device_stack.h"
#include "cuda/host/plan.h"
#include "cuda/host/timeline.h"
#include "cuda/kernels/rows.h"

namespace lstm_fastkernels {
namespace cuda {

// A direction of a layer over a chunk of its steps: its share of a launch.
struct Part {
  int64_t layer, direction;
  const PackedLayer &weights;
  LayerState &state;
  Slot &slot;
  Chunk chunk;
};

struct Call {
  Call(const PackedStack &stack, const LstmArguments &arguments, const Schedule &schedule,
       const Plan &plan, CallMemory &memory, void *stream)
      : stack(stack), shape(stack.shape), arguments(arguments), schedule(schedule), plan(plan),
        memory(memory), timeline(schedule, arguments.time_steps, shape.num_directions),
        stream(stream) {
    rows.batch = arguments.batch_size;
    rows.time_steps = arguments.time_steps;
    rows.count = timeline.all_rows();
    rows.starts = memory.starts;
    rows.order = memory.order;
  }

  const Choice &choice(const Part &p) const { return plan.layers[static_cast<size_t>(p.layer)]; }

  Part part(int64_t layer, int64_t direction, int64_t slot, const Chunk &chunk) const {
    const int64_t index = layer * shape.num_directions + direction;
    return {layer,
            direction,
            stack.layers[static_cast<size_t>(index)],
            memory.state(index),
            memory.slots[static_cast<size_t>(slot)],
            chunk};
  }
  std::vector<Part> directions_of(int64_t layer, const Chunk &chunk = {}) const {
    std::vector<Part> parts;
    for (int64_t d = 0; d < shape.num_directions; ++d)
      parts.push_back(part(layer, d, d, chunk));
    return parts;
  }

  // Where a layer's input and output lie.
  Plane input(int64_t layer) const { return layer == 0 ? x_plane(arguments) : output(layer - 1); }
  Plane output(int64_t layer) const {
    if (layer + 1 == shape.num_layers)
      return y_plane(arguments);
    Plane plane;
    plane.addressing =
        shape.num_directions == 2 ? Plane::Addressing::contiguous : Plane::Addressing::chunk;
    plane.base = reinterpret_cast<uint8_t *>(memory.after(layer));
    plane.row_bytes = shape.num_directions * shape.output_size() * int64_t{sizeof(float)};
    return plane;
  }

  const PackedStack &stack;
  const LstmShape &shape;
  const LstmArguments &arguments;
  const Schedule &schedule;
  const Plan &plan;
  CallMemory &memory;
  const Timeline timeline;
  void *const stream;
  Rows rows;
};

} // namespace cuda
} // namespace lstm_fastkernels
