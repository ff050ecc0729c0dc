#include "cuda/host/driver.h"

#include <algorithm>
#include <string>

#include "common/fail.h"
#include "common/plane.h"
#include "cuda/host/call.h"
#include "cuda/host/steps.h"
#include "cuda/host/wavefront.h"
#include "cuda/kernels/plain_kernels.h"

namespace lstm_fastkernels {
namespace cuda {
namespace {

CallMemory memory_of(const PackedStack &stack, const LstmArguments &a, const Schedule &schedule,
                     int side_by_side, int64_t chunk_rows, void *base) {
  const Timeline timeline(schedule, a.time_steps, stack.shape.num_directions);
  if (chunk_rows == 0)
    chunk_rows = chunk_rows_for(stack, a, timeline, side_by_side);
  return CallMemory(stack, a, schedule, timeline, side_by_side, chunk_rows, base);
}

void clear_packets(const Call &call) {
  Plane packets;
  packets.base = reinterpret_cast<uint8_t *>(call.memory.packets);
  packets.row_bytes = kPacketsOfARow * int64_t{sizeof(device::Words4)};
  clear_rows(packets, 1, call.memory.num_packets / kPacketsOfARow,
             packets.row_bytes / int64_t{sizeof(float)}, call.stream);
}

// Initializes device memory before the first chunk.
void prepare(const Call &call) {
  const LstmArguments &a = call.arguments;
  if (call.memory.starts)
    upload(call.schedule.starts().data(), a.time_steps, call.memory.starts, call.stream);
  if (call.memory.order) {
    upload(call.schedule.order().data(), a.batch_size, call.memory.order, call.stream);
    clear_rows(y_plane(a), a.time_steps, a.batch_size,
               call.shape.num_directions * call.shape.output_size(), call.stream);
  }
  if (std::any_of(call.plan.layers.begin(), call.plan.layers.end(),
                  [](const Choice &choice) { return choice.persistent && !choice.shape.cluster; }))
    clear_packets(call);
}

} // namespace

int64_t workspace_of(const PackedStack &stack, const LstmArguments &a, const Schedule &schedule,
                     int64_t chunk_rows) {
  int64_t bytes = 0;
  for (int n = 1; n <= most_side_by_side(stack, a.batch_size, a.time_steps); ++n)
    bytes = std::max(bytes, memory_of(stack, a, schedule, n, chunk_rows, nullptr).bytes);
  return bytes;
}

void run(const PackedStack &stack, const LstmArguments &arguments, const Schedule &schedule,
         const Plan &plan, const Queue &queue) {
  const int64_t needed = workspace_of(stack, arguments, schedule, plan.chunk_rows);
  const int64_t given = queue.workspace ? static_cast<int64_t>(queue.workspace_bytes) : 0;
  if (given < needed)
    fail("the workspace must have " + std::to_string(needed) + " bytes, got " +
         std::to_string(given));
  if (reinterpret_cast<uintptr_t>(queue.workspace) % kWorkspaceAlignment)
    fail("the workspace must be aligned to " + std::to_string(kWorkspaceAlignment) + " bytes");
  int64_t side_by_side = 1;
  for (const LayerGroup &group : groups_of(plan.layers))
    side_by_side = std::max(side_by_side, group.count);
  CallMemory memory = memory_of(stack, arguments, schedule, static_cast<int>(side_by_side),
                                plan.chunk_rows, queue.workspace);
  const Call call(stack, arguments, schedule, plan, memory, queue.stream);
  if (plan.single_step) {
    for (int64_t layer = 0; layer < stack.shape.num_layers; ++layer)
      run_single_step(call, layer);
    return;
  }
  prepare(call);
  run_chunks(call);
}

} // namespace cuda
} // namespace lstm_fastkernels
