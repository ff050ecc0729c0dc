// The public interface: checks arguments. Kernels are chosen and launched elsewhere.
#include <string>
#include <vector>

#include "common/fail.h"
#include "common/percent.h"
#include "common/schedule.h"
#include "cuda/host/device_stack.h"
#include "cuda/host/driver.h"
#include "cuda/host/plan.h"
#include "cuda/kernels/devices.h"
#include "lstm_fastkernels/cuda.h"
#include "weights/packed_stack.h"

namespace lstm_fastkernels {
namespace cuda {
namespace {

// Kernels and grids count rows in 32 bits; a block clears four rows of y.
constexpr int64_t kMostRows = int64_t{1} << 30, kMostRowsOfAllSteps = int64_t{1} << 32;

Schedule checked_schedule(const LstmArguments &a) {
  if (a.batch_size > kMostRows)
    fail("batch_size must be at most " + std::to_string(kMostRows) + " on a CUDA device, got " +
         std::to_string(a.batch_size));
  if (a.batch_size > 0 && a.time_steps > kMostRowsOfAllSteps / a.batch_size)
    fail("time_steps * batch_size must be at most " + std::to_string(kMostRowsOfAllSteps) +
         " on a CUDA device, got " + std::to_string(a.time_steps) + " * " +
         std::to_string(a.batch_size));
  return Schedule(a);
}

// "16x32 blocks kept: weight_ih_l0 100.0%, weight_hh_l0 12.5%"
std::string kept_text(const PackedStack &stack, int64_t layer) {
  std::string text = "16x" + std::to_string(columns_per_fragment(stack.form)) + " blocks kept: ";
  const char *separator = "";
  const int64_t directions = stack.shape.num_directions;
  for (int64_t i = layer * directions; i < (layer + 1) * directions; ++i) {
    const PackedLayer &packed = stack.layers[static_cast<size_t>(i)];
    const auto add = [&](const char *name, const DeviceMatrix &matrix, const MatrixShape &of) {
      const int64_t all = of.num_blocks(columns_per_fragment(stack.form), kBandHeight);
      text += separator + (name + layer_suffix(stack.shape, i)) + " " +
              percent(matrix.num_fragments, all);
      separator = ", ";
    };
    add("weight_ih", packed.ih, ih_shape(stack.shape, layer));
    add("weight_hh", packed.hh, hh_shape(stack.shape));
    if (stack.shape.proj_size)
      add("weight_hr", packed.hr, hr_shape(stack.shape));
  }
  return text;
}

} // namespace

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
  check_pointers(arguments);
  const DeviceGuard guard(queue.device);
  check_failure(queue.device);
  const Plan plan = make_plan(packed, arguments, schedule, queue.device);
  run(packed, arguments, schedule, plan, queue);
}

std::vector<std::string> explain(const DeviceStack &stack, const LstmArguments &arguments,
                                 int device) {
  const PackedStack &packed = stack.packed();
  const Schedule schedule = checked_schedule(arguments);
  if (arguments.batch_size == 0)
    return std::vector<std::string>(static_cast<size_t>(packed.shape.num_layers), "nothing to run");
  const DeviceGuard guard(device);
  std::vector<std::string> layers;
  const Plan plan = make_plan(packed, arguments, schedule, device);
  for (const LayerGroup &group : groups_of(plan.layers))
    for (int64_t layer = group.first; layer < group.first + group.count; ++layer) {
      const Choice &choice = plan.layers[static_cast<size_t>(layer)];
      std::string way = plan.single_step    ? "one launch: there is one time step"
                        : choice.persistent ? "persistent: " + choice.reason
                                            : "a launch each step: " + choice.reason;
      if (group.count > 1)
        way += ", " + std::to_string(group.count) + " layers side by side";
      layers.push_back(way + "; " + kept_text(packed, layer));
    }
  return layers;
}

} // namespace cuda
} // namespace lstm_fastkernels
