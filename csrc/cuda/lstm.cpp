// The interface: arguments are checked here, kernels chosen and launched elsewhere.
#include <string>

#include "device_guard.h"
#include "device_stack.h"
#include "fail.h"
#include "lstm_fastkernels/cuda.h"
#include "plain.h"
#include "schedule.h"

namespace lstm_fastkernels {
namespace cuda {
namespace {

// Kernels hold counts of rows, and the grids made of them, in 32 bits.
constexpr int64_t kMostRows = int64_t{1} << 30;

Schedule checked_schedule(const LstmArguments &a) {
  if (a.batch_size > kMostRows)
    fail("batch_size must be at most " + std::to_string(kMostRows) + " on a CUDA device, got " +
         std::to_string(a.batch_size));
  return Schedule(a);
}

} // namespace

size_t workspace_bytes(const DeviceStack &stack, const LstmArguments &arguments) {
  const PackedStack packed(stack);
  const Schedule schedule = checked_schedule(arguments);
  if (arguments.batch_size == 0)
    return 0;
  return static_cast<size_t>(plain_workspace(packed, arguments, schedule));
}

void lstm_forward(const DeviceStack &stack, const LstmArguments &arguments, const Queue &queue) {
  const PackedStack packed(stack);
  const Schedule schedule = checked_schedule(arguments);
  if (arguments.batch_size == 0)
    return;
  check_pointers(arguments);
  const int64_t needed = plain_workspace(packed, arguments, schedule);
  const int64_t given = queue.workspace ? static_cast<int64_t>(queue.workspace_bytes) : 0;
  if (given < needed)
    fail("the workspace must have " + std::to_string(needed) + " bytes, got " +
         std::to_string(given));
  const DeviceGuard guard(queue.device);
  run_plain(packed, arguments, schedule, kChunkBytes, queue.workspace, queue.stream);
}

} // namespace cuda
} // namespace lstm_fastkernels
