// The public interface: checks arguments. Kernels are chosen and launched elsewhere.
#include <string>

#include "common/fail.h"
#include "common/plane.h"
#include "common/schedule.h"
#include "cuda/host/checked_call.h"
#include "cuda/host/device_stack.h"
#include "cuda/host/driver.h"
#include "cuda/host/plan.h"
#include "cuda/kernels/devices.h"
#include "lstm_fastkernels/cuda.h"

namespace lstm_fastkernels {
namespace cuda {

size_t workspace_bytes(const DeviceStack &stack, const LstmArguments &arguments) {
  const PackedStack &packed = stack.packed();
  const Schedule schedule = checked_schedule(arguments);
  if (arguments.batch_size == 0)
    return 0;
  return static_cast<size_t>(workspace_of(packed, arguments, schedule));
}

void lstm_forward(const DeviceStack &stack, const LstmArguments &arguments, const Queue &queue) {
  const PackedStack &packed = stack.packed();
  const Schedule schedule = checked_schedule(arguments);
  if (arguments.batch_size == 0)
    return;
  check_memory(arguments, packed.shape);
  const DeviceGuard guard(queue.device);
  check_failure(queue.device);
  const Plan plan = make_plan(packed, arguments, schedule, queue.device);
  run(packed, arguments, schedule, plan, queue);
}

} // namespace cuda
} // namespace lstm_fastkernels
