#include "cuda/host/call_memory.h"

#include <algorithm>
#include <initializer_list>

#include "common/rounding.h"
#include "cuda/host/choice.h"
#include "weights/matrix_source.h"

namespace lstm_fastkernels {
namespace cuda {
namespace {

constexpr int64_t kChunkBytes = int64_t{32} << 20;
constexpr int64_t kFewestSteps = 64, kFewestChunks = 8;

// Of an input row of any layer.
int64_t most_input_bytes(const PackedStack &stack) {
  int64_t most = 0;
  for (const PackedLayer &layer : stack.layers)
    most = std::max(most, quantized_bytes(layer.ih.arithmetic(), layer.ih.first().num_columns));
  return most;
}

// The largest V among the matrices of these kinds, in rows with padding; 0 where there is none.
int64_t most_v_rows(const PackedStack &stack, std::initializer_list<MatrixKind> kinds) {
  int64_t most = 0;
  for (const PackedLayer &layer : stack.layers)
    for (const MatrixKind kind : kinds)
      most = std::max(most, matrix_of(layer, kind).v.padded_rows());
  return most;
}

// Allocates from a base on; without a base it only counts.
class Allocator {
public:
  explicit Allocator(void *base) : base_(static_cast<uint8_t *>(base)) {}

  template <class T> T *allocate(int64_t count) {
    const int64_t at = used_;
    used_ += round_up(count * int64_t{sizeof(T)}, kWorkspaceAlignment);
    return base_ ? reinterpret_cast<T *>(base_ + at) : nullptr;
  }
  QuantizedRows allocate_rows(int64_t rows, int64_t row_bytes) {
    QuantizedRows allocated;
    allocated.stride = row_bytes;
    allocated.data = allocate<uint8_t>(rows * row_bytes);
    allocated.scales = allocate<float>(rows);
    allocated.zero_points = allocate<int32_t>(rows);
    return allocated;
  }
  // With room for every precision.
  Between allocate_between(int64_t rows, int64_t v_rows) {
    Between b;
    if (v_rows == 0)
      return b;
    b.products = allocate<float>(rows * v_rows);
    b.rows = allocate_rows(rows, quantized_bytes(Arithmetic::float32, v_rows));
    return b;
  }
  int64_t *allocate_copy(const std::vector<int64_t> &values) {
    return values.empty() ? nullptr : allocate<int64_t>(static_cast<int64_t>(values.size()));
  }
  // For every layer: with room for every precision.
  LayerState allocate_state(const PackedStack &stack, int64_t rows) {
    const PackedLayer &any = stack.layers[0];
    LayerState s;
    s.units_stride = any.hh.num_tiles * kBandHeight;
    s.c = allocate<float>(rows * s.units_stride);
    s.h = s.cell_output = allocate<float>(rows * s.units_stride);
    s.h_stride = s.units_stride;
    s.quantized_h =
        allocate_rows(rows, quantized_bytes(Arithmetic::float32, stack.shape.output_size()));
    s.between = allocate_between(rows, most_v_rows(stack, {MatrixKind::hh, MatrixKind::hr}));
    if (stack.shape.proj_size) {
      s.h_stride = any.hr.padded_rows();
      s.h = allocate<float>(rows * s.h_stride);
      s.quantized_cell_output =
          allocate_rows(rows, quantized_bytes(Arithmetic::float32, stack.shape.hidden_size));
    }
    return s;
  }
  int64_t used() const { return used_; }

private:
  uint8_t *base_;
  int64_t used_ = 0;
};

} // namespace

int64_t chunk_rows_for(const PackedStack &stack, const LstmArguments &a, const Timeline &timeline,
                       int side_by_side) {
  const int64_t row_bytes = stack.layers[0].hh.padded_rows() * int64_t{sizeof(float)};
  int64_t rows = kChunkBytes / (stack.shape.num_directions * side_by_side * row_bytes);
  if (side_by_side > 1)
    rows = std::min(rows, divide_up(timeline.all_rows(), kFewestChunks));
  if (may_be_persistent(stack, a.batch_size, a.time_steps))
    rows = std::max(rows, kFewestSteps * a.batch_size);
  return rows;
}

CallMemory::CallMemory(const PackedStack &stack, const LstmArguments &a, const Schedule &schedule,
                       const Timeline &timeline, int side_by_side, int64_t rows_a_chunk, void *base)
    : chunk_rows(std::max(a.batch_size, std::min(rows_a_chunk, timeline.all_rows()))) {
  const LstmShape &shape = stack.shape;
  const bool two_directions = shape.num_directions == 2;
  Allocator workspace(base);
  starts = workspace.allocate_copy(schedule.starts());
  order = workspace.allocate_copy(schedule.order());
  for (int64_t i = 0; i < (two_directions ? 2 : shape.num_layers); ++i)
    states.push_back(workspace.allocate_state(stack, a.batch_size));

  const DeviceMatrix &hh = stack.layers[0].hh;
  const int64_t inner_width = shape.num_directions * shape.output_size();
  slots.resize(static_cast<size_t>(shape.num_directions * side_by_side));
  for (Slot &slot : slots) {
    slot.input = workspace.allocate_rows(chunk_rows, most_input_bytes(stack));
    slot.between = workspace.allocate_between(chunk_rows, most_v_rows(stack, {MatrixKind::ih}));
    slot.gates = workspace.allocate<float>(chunk_rows * hh.padded_rows());
  }
  // Layers that run one after the other alternate between two buffers.
  const int64_t buffers = side_by_side > 1 ? shape.num_layers : 2;
  for (int64_t i = 0; i < std::min(shape.num_layers - 1, buffers); ++i)
    between.push_back(workspace.allocate<float>(
        (two_directions ? timeline.all_rows() : chunk_rows) * inner_width));
  if (may_be_persistent(stack, a.batch_size, a.time_steps)) {
    const int64_t slot_packets = round_up(most_packets(hh, a.batch_size), kPacketsOfARow);
    num_packets = static_cast<int64_t>(slots.size()) * slot_packets;
    packets = workspace.allocate<device::Words4>(num_packets);
    for (size_t i = 0; packets && i < slots.size(); ++i)
      slots[i].packets = packets + static_cast<int64_t>(i) * slot_packets;
  }
  bytes = workspace.used();
}

} // namespace cuda
} // namespace lstm_fastkernels
