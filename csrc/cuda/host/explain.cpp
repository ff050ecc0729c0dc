// What a call would do, and the same in words.
#include <string>
#include <vector>

#include "common/percent.h"
#include "cuda/host/checked_call.h"
#include "cuda/host/device_stack.h"
#include "cuda/host/plan.h"
#include "cuda/kernels/devices.h"
#include "lstm_fastkernels/cuda.h"
#include "weights/packed_stack.h"

namespace lstm_fastkernels {
namespace cuda {
namespace {

std::vector<MatrixPlan> matrices_of(const PackedStack &stack, int64_t layer) {
  std::vector<MatrixPlan> matrices;
  for (const MatrixName &of : matrix_names(stack.shape)) {
    if (of.cell / stack.shape.num_directions != layer)
      continue;
    const auto &whole = matrix_of(stack.layers[static_cast<size_t>(of.cell)], of.kind);
    for (int part = 0; part < num_parts(whole.rank); ++part) {
      const DeviceMatrix &matrix = part ? whole.v : whole;
      const MatrixShape shape = part_shape(matrix_shape(of), whole.rank, part);
      const int64_t columns = columns_per_fragment(matrix.arithmetic());
      matrices.push_back({part_name(of.name, whole.rank, part), matrix.precision, columns,
                          shape.num_blocks(columns, kBandHeight), int64_t{matrix.num_fragments}});
    }
  }
  return matrices;
}

std::string way_text(const LayerPlan &layer) {
  const std::string way = layer.way == Way::one_launch   ? "one launch: "
                          : layer.way == Way::persistent ? "persistent: "
                                                         : "launches each step: ";
  return way + layer.reason +
         (layer.side_by_side > 1
              ? ", " + std::to_string(layer.side_by_side) + " layers side by side"
              : "");
}

} // namespace

std::vector<LayerPlan> explain(const DeviceStack &stack, const LstmArguments &arguments,
                               int device) {
  const PackedStack &packed = stack.packed();
  const Schedule schedule = checked_schedule(arguments);
  std::vector<LayerPlan> layers(static_cast<size_t>(packed.shape.num_layers));
  if (arguments.batch_size == 0)
    return layers;
  const DeviceGuard guard(device);
  const Plan plan = make_plan(packed, arguments, schedule, device);
  for (const LayerGroup &group : groups_of(plan.layers))
    for (int64_t i = group.first; i < group.first + group.count; ++i) {
      const Choice &choice = plan.layers[static_cast<size_t>(i)];
      LayerPlan &layer = layers[static_cast<size_t>(i)];
      layer.way = plan.single_step    ? Way::one_launch
                  : choice.persistent ? Way::persistent
                                      : Way::launches_each_step;
      layer.reason = plan.single_step ? "there is one time step" : choice.reason;
      layer.side_by_side = group.count;
      layer.matrices = matrices_of(packed, i);
    }
  return layers;
}

std::vector<std::string> describe(const std::vector<LayerPlan> &layers) {
  std::vector<std::string> lines;
  for (const LayerPlan &layer : layers) {
    if (layer.way == Way::nothing) {
      lines.push_back("nothing to run");
      continue;
    }
    std::string kept;
    for (const MatrixPlan &matrix : layer.matrices)
      kept += (kept.empty() ? "" : ", ") + matrix.name + " " + percent(matrix.kept, matrix.blocks) +
              " (" + std::string(precision_name(matrix.precision)) + ", 16x" +
              std::to_string(matrix.block_columns) + ")";
    lines.push_back(way_text(layer) + "; blocks kept: " + kept);
  }
  return lines;
}

std::string brief(const std::vector<LayerPlan> &layers) {
  std::string all, last;
  for (const LayerPlan &layer : layers) {
    const std::string way = layer.way == Way::nothing ? "nothing to run" : way_text(layer);
    if (way != last)
      all += (all.empty() ? "" : " / ") + way;
    last = way;
  }
  return all;
}

} // namespace cuda
} // namespace lstm_fastkernels
