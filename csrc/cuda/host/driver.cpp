#include "cuda/host/driver.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "common/fail.h"
#include "common/plane.h"
#include "cuda/host/call_memory.h"
#include "cuda/host/timeline.h"
#include "cuda/kernels/plain_kernels.h"
#include "cuda/kernels/single_step.h"

namespace lstm_fastkernels {
namespace cuda {
namespace {

Timeline timeline_of(const PackedStack &stack, const LstmArguments &a, const Schedule &schedule) {
  return Timeline(schedule, a.time_steps, stack.shape.num_directions);
}

CallMemory memory_of(const PackedStack &stack, const LstmArguments &a, const Schedule &schedule,
                     int side_by_side, int64_t chunk_rows, void *base) {
  const Timeline timeline = timeline_of(stack, a, schedule);
  if (chunk_rows == 0)
    chunk_rows = chunk_rows_for(stack, a, timeline, side_by_side);
  return CallMemory(stack, a, schedule, timeline, side_by_side, chunk_rows, base);
}

// A direction of a layer, and its share of a launch.
struct Part {
  int64_t layer, direction;
  const PackedLayer &weights;
  State &state;
  Slot &slot;
  Chunk chunk;
};

class Call {
public:
  Call(const PackedStack &stack, const LstmArguments &a, const Schedule &schedule, const Plan &plan,
       CallMemory &memory, void *stream)
      : stack_(stack), shape_(stack.shape), a_(a), schedule_(schedule), plan_(plan),
        memory_(memory), timeline_(timeline_of(stack, a, schedule)), stream_(stream) {
    rows_.batch = a.batch_size;
    rows_.time_steps = a.time_steps;
    rows_.count = timeline_.all_rows();
    rows_.starts = memory.starts;
    rows_.order = memory.order;
  }

  void run() {
    if (plan_.single_step)
      return run_single_step();
    if (memory_.starts)
      upload(schedule_.starts().data(), a_.time_steps, memory_.starts, stream_);
    if (memory_.order) {
      upload(schedule_.order().data(), a_.batch_size, memory_.order, stream_);
      clear_rows(y_plane(a_), a_.time_steps, a_.batch_size,
                 shape_.num_directions * shape_.output_size(), stream_);
    }
    if (std::any_of(plan_.layers.begin(), plan_.layers.end(), [](const Choice &choice) {
          return choice.persistent && !choice.shape.cluster;
        }))
      clear_packets();
    const std::vector<Chunk> chunks = timeline_.chunks(memory_.chunk_rows, kMostSteps);
    if (two_directions())
      run_bidirectional(chunks);
    else
      run_forward(chunks);
  }

private:
  bool two_directions() const { return shape_.num_directions == 2; }
  // Columns between two layers.
  int64_t inner_width() const { return shape_.num_directions * shape_.output_size(); }
  float h_floor() const { return shape_.proj_size ? 0.0f : 1.0f; }
  float input_floor(int64_t layer) const { return layer == 0 ? 0.0f : h_floor(); }

  Part part(int64_t layer, int64_t direction, int64_t slot, const Chunk &chunk) {
    const int64_t index = layer * shape_.num_directions + direction;
    return {layer,
            direction,
            stack_.layers[static_cast<size_t>(index)],
            memory_.state(index),
            memory_.slots[static_cast<size_t>(slot)],
            chunk};
  }
  std::vector<Part> directions_of(int64_t layer, const Chunk &chunk = {}) {
    std::vector<Part> parts;
    for (int64_t d = 0; d < shape_.num_directions; ++d)
      parts.push_back(part(layer, d, d, chunk));
    return parts;
  }

  // make(part), for all parts.
  template <class Set, class Make>
  static Set arguments_of(const std::vector<Part> &parts, const Make &make) {
    Set set;
    for (const Part &p : parts)
      set.of[set.count++] = make(p);
    return set;
  }

  Plane after(int64_t layer) const {
    if (layer + 1 == shape_.num_layers)
      return y_plane(a_);
    Plane plane;
    plane.addressing = two_directions() ? Plane::Addressing::gapless : Plane::Addressing::chunk;
    plane.base = reinterpret_cast<uint8_t *>(memory_.after(layer));
    plane.row_bytes = inner_width() * int64_t{sizeof(float)};
    return plane;
  }
  Plane before(int64_t layer) const { return layer == 0 ? x_plane(a_) : after(layer - 1); }
  Plane output(const Part &p) const {
    return after(p.layer).columns_from(p.direction * shape_.output_size());
  }

  // Where a part's state begins at the caller's; the first of its rows.
  template <class T> T *state_rows(T *states, const Part &p, int64_t columns) const {
    using Byte = std::conditional_t<std::is_const_v<T>, const uint8_t, uint8_t>;
    const int64_t rows = (p.layer * shape_.num_directions + p.direction) * a_.batch_size;
    return states ? static_cast<Byte *>(states) + rows * columns * bytes_of(a_.state_type)
                  : nullptr;
  }

  void run_single_step() {
    Rows rows;
    rows.batch = a_.batch_size;
    rows.time_steps = 1;
    const auto arguments = [&](const Part &p) {
      SingleStepArguments s;
      s.ih = p.weights.ih;
      s.hh = p.weights.hh;
      s.bias = p.weights.bias;
      s.rows = rows;
      s.input_size = static_cast<int32_t>(shape_.layer_input_size(p.layer));
      s.hidden_size = static_cast<int32_t>(shape_.hidden_size);
      s.x_floor = input_floor(p.layer);
      s.x = before(p.layer);
      s.y = output(p);
      s.h0 = state_rows(a_.h0, p, shape_.hidden_size);
      s.c0 = state_rows(a_.c0, p, shape_.hidden_size);
      s.h_n = state_rows(a_.h_n, p, shape_.hidden_size);
      s.c_n = state_rows(a_.c_n, p, shape_.hidden_size);
      s.state_type = a_.state_type;
      return s;
    };
    for (int64_t layer = 0; layer < shape_.num_layers; ++layer)
      cuda::single_step(
          stack_.form,
          arguments_of<Directions<SingleStepArguments>>(directions_of(layer), arguments), stream_);
  }

  void clear_packets() {
    Plane packets;
    packets.base = reinterpret_cast<uint8_t *>(memory_.packets);
    packets.row_bytes = kPacketsOfARow * int64_t{sizeof(device::Words4)};
    clear_rows(packets, 1, memory_.num_packets / kPacketsOfARow,
               packets.row_bytes / int64_t{sizeof(float)}, stream_);
  }

  // Chunks go through the layers one behind the other: a wavefront. In each wave a layer takes the
  // chunk that the layer below has just given; within a group, the one that it gave in the wave
  // before, so that the group's layers, each at another chunk, are at work at the same time.
  void run_forward(const std::vector<Chunk> &chunks) {
    const std::vector<Group> groups = groups_of(plan_.layers);
    for (int64_t layer = 0; layer < shape_.num_layers; ++layer)
      load(layer);
    const int64_t num_chunks = static_cast<int64_t>(chunks.size());
    const int64_t last_behind = shape_.num_layers - static_cast<int64_t>(groups.size());
    for (int64_t wave = 0; wave < num_chunks + last_behind; ++wave) {
      int64_t behind = 0; // the chunks between a layer and the first
      for (const Group &group : groups) {
        std::vector<Part> parts;
        for (int64_t i = 0; i < group.count; ++i) {
          const int64_t chunk = wave - behind - i;
          if (0 <= chunk && chunk < num_chunks)
            parts.push_back(part(group.first + i, 0, i, chunks[static_cast<size_t>(chunk)]));
        }
        behind += group.count - 1;
        if (!parts.empty())
          run_chunk(parts);
      }
    }
    for (int64_t layer = 0; layer < shape_.num_layers; ++layer)
      store(layer);
  }

  // Both directions of a layer need all of the layer below.
  void run_bidirectional(const std::vector<Chunk> &chunks) {
    for (int64_t layer = 0; layer < shape_.num_layers; ++layer) {
      load(layer);
      for (const Chunk &chunk : chunks)
        run_chunk(directions_of(layer, chunk));
      store(layer);
    }
  }

  void load(int64_t layer) {
    const auto arguments = [&](const Part &p) {
      const State &s = p.state;
      LoadStateArguments l;
      l.rows = rows_;
      l.h0 = state_rows(a_.h0, p, shape_.output_size());
      l.c0 = state_rows(a_.c0, p, shape_.hidden_size);
      l.type = a_.state_type;
      l.h_columns = static_cast<int32_t>(shape_.output_size());
      l.c_columns = static_cast<int32_t>(shape_.hidden_size);
      l.h = s.h;
      l.c = s.c;
      l.h_stride = s.h_stride;
      l.c_stride = s.units_stride;
      l.quantized[0] = s.quantized[0];
      if (!shape_.proj_size)
        l.quantized[1] = s.quantized[1];
      l.first_scales = s.first_scales;
      l.floor = h_floor();
      l.activation_max = p.weights.hh.activation_max;
      l.unprojected = s.unprojected;
      l.unprojected_max = p.weights.hr.activation_max;
      return l;
    };
    load_state(stack_.form,
               arguments_of<Directions<LoadStateArguments>>(directions_of(layer), arguments),
               stream_);
  }

  void store(int64_t layer) {
    const auto arguments = [&](const Part &p) {
      const State &s = p.state;
      StoreStateArguments e;
      e.rows = rows_;
      e.h = s.h;
      e.c = s.c;
      e.h_stride = s.h_stride;
      e.c_stride = s.units_stride;
      e.h_columns = static_cast<int32_t>(shape_.output_size());
      e.c_columns = static_cast<int32_t>(shape_.hidden_size);
      e.h_n = state_rows(a_.h_n, p, shape_.output_size());
      e.c_n = state_rows(a_.c_n, p, shape_.hidden_size);
      e.type = a_.state_type;
      return e;
    };
    store_state(arguments_of<Directions<StoreStateArguments>>(directions_of(layer), arguments),
                stream_);
  }

  // Of layers of one group, or the directions of one layer.
  void run_chunk(const std::vector<Part> &parts) {
    const auto quantized = [&](const Part &p) {
      const RowSpan rows = timeline_.rows(p.chunk, p.direction);
      QuantizeArguments q;
      q.rows = rows_;
      q.first = rows.first;
      q.count = rows.count;
      q.in = before(p.layer);
      q.columns = static_cast<int32_t>(shape_.layer_input_size(p.layer));
      q.out = input(p);
      q.floor = input_floor(p.layer);
      q.activation_max = p.weights.ih.activation_max;
      return q;
    };
    quantize_rows(stack_.form, arguments_of<SideBySide<QuantizeArguments>>(parts, quantized),
                  stream_);
    const auto multiplied = [&](const Part &p) {
      ProductsArguments a;
      a.matrix = p.weights.ih;
      a.bias = p.weights.bias;
      a.count = timeline_.rows(p.chunk, p.direction).count;
      a.x = input(p);
      a.out = p.slot.gates;
      return a;
    };
    products(stack_.form, arguments_of<SideBySide<ProductsArguments>>(parts, multiplied), stream_);
    if (plan_.layers[static_cast<size_t>(parts[0].layer)].persistent)
      return run_steps(parts);
    for (int64_t s = parts[0].chunk.begin; s < parts[0].chunk.end; ++s)
      run_step(parts, s);
  }

  QuantizedRows input(const Part &p) const {
    QuantizedRows rows = p.slot.input;
    rows.stride = quantized_bytes(stack_.form, shape_.layer_input_size(p.layer));
    return rows;
  }

  // All steps of the chunks at once, each range of rows by its own blocks.
  void run_steps(const std::vector<Part> &parts) {
    const PersistentShape &shape = plan_.layers[static_cast<size_t>(parts[0].layer)].shape;
    SideBySide<PersistentArguments> all;
    for (const Part &p : parts) {
      for (int64_t i = 0; i < shape.ranges; ++i)
        if (i * shape.rows < timeline_.most_active(p.chunk, p.direction))
          all.of[all.count++] = steps_of(p, i, shape);
      p.slot.epoch += static_cast<uint32_t>(p.chunk.end - p.chunk.begin);
    }
    run_persistent(shape, all, stream_);
  }

  PersistentArguments steps_of(const Part &p, int64_t range, const PersistentShape &shape) const {
    const State &s = p.state;
    PersistentArguments a;
    a.rows = rows_;
    a.row_begin = range * shape.rows;
    a.num_rows = static_cast<int32_t>(std::min<int64_t>(shape.rows, a_.batch_size - a.row_begin));
    a.hh = p.weights.hh;
    a.begin = p.chunk.begin;
    a.end = p.chunk.end;
    a.reverse = static_cast<int32_t>(p.direction);
    a.blocks = shape.blocks;
    a.hidden_size = static_cast<int32_t>(shape_.hidden_size);
    for (int i = 0; i < 2; ++i)
      a.h[i] = s.quantized[i].from(a.row_begin);
    a.first_scales = s.first_scales + a.row_begin;
    a.c = s.c + a.row_begin * s.units_stride;
    a.last_h = s.h + a.row_begin * s.units_stride;
    a.units_stride = s.units_stride;
    a.input_gates = p.slot.gates;
    a.first_row = timeline_.rows(p.chunk, p.direction).first;
    a.y = output(p);
    a.packets = p.slot.packets + range * range_packets(a.hh, shape.rows);
    a.epoch = p.slot.epoch;
    a.failed = plan_.failed;
    a.patience_ns = plan_.patience_ns;
    return a;
  }

  void run_step(const std::vector<Part> &parts, int64_t s) {
    const auto arguments = [&](const Part &p) {
      const int64_t t = timeline_.time(s, p.direction);
      const int64_t row = timeline_.row_in(p.chunk, s, p.direction);
      StepArguments e;
      e.rows = rows_;
      e.hh = p.weights.hh;
      e.t = t;
      e.active = static_cast<int32_t>(timeline_.active(t));
      e.hidden_size = static_cast<int32_t>(shape_.hidden_size);
      e.h_in = p.state.quantized[s % 2];
      e.first_scales = p.state.first_scales;
      e.first_row = static_cast<int32_t>(timeline_.first_row(s, p.direction));
      e.input_gates = p.slot.gates + row * p.weights.hh.padded_rows();
      e.c = p.state.c;
      e.h = p.state.cell_output;
      e.units_stride = p.state.units_stride;
      e.h_out = shape_.proj_size ? p.state.unprojected : p.state.quantized[(s + 1) % 2];
      e.h_out_max = (shape_.proj_size ? p.weights.hr : p.weights.hh).activation_max;
      if (!shape_.proj_size)
        e.y = output(p);
      e.y_chunk_row = row;
      return e;
    };
    step(stack_.form, arguments_of<Directions<StepArguments>>(parts, arguments), stream_);
    if (shape_.proj_size)
      project(parts, s);
  }

  void project(const std::vector<Part> &parts, int64_t s) {
    const auto multiplied = [&](const Part &p) {
      ProductsArguments a;
      a.matrix = p.weights.hr;
      a.count = timeline_.active(timeline_.time(s, p.direction));
      a.x = p.state.unprojected;
      a.out = p.state.h;
      return a;
    };
    products(stack_.form, arguments_of<SideBySide<ProductsArguments>>(parts, multiplied), stream_);
    const auto quantized = [&](const Part &p) {
      const int64_t t = timeline_.time(s, p.direction);
      QuantizeArguments q;
      q.rows = rows_;
      q.first = timeline_.start(t);
      q.count = timeline_.active(t);
      q.in.addressing = Plane::Addressing::chunk;
      q.in.base = reinterpret_cast<uint8_t *>(p.state.h);
      q.in.row_bytes = p.state.h_stride * int64_t{sizeof(float)};
      q.columns = static_cast<int32_t>(shape_.proj_size);
      q.out = p.state.quantized[0];
      q.floor = h_floor();
      q.activation_max = p.weights.hh.activation_max;
      q.copy = output(p);
      q.copy_chunk_row = timeline_.row_in(p.chunk, s, p.direction);
      return q;
    };
    quantize_rows(stack_.form, arguments_of<SideBySide<QuantizeArguments>>(parts, quantized),
                  stream_);
  }

  const PackedStack &stack_;
  const LstmShape &shape_;
  const LstmArguments &a_;
  const Schedule &schedule_;
  const Plan &plan_;
  CallMemory &memory_;
  const Timeline timeline_;
  Rows rows_;
  void *stream_;
};

} // namespace

int useful_side_by_side(const PackedStack &stack, const LstmArguments &a, const Schedule &schedule,
                        int most) {
  const Timeline timeline = timeline_of(stack, a, schedule);
  return most > 1 && chunk_rows_for(stack, a, timeline, most) < timeline.all_rows() ? most : 1;
}

int64_t workspace_of(const PackedStack &stack, const LstmArguments &a, const Schedule &schedule,
                     int64_t chunk_rows) {
  int64_t bytes = 0;
  for (int n = 1; n <= most_side_by_side(stack.shape, a.batch_size, a.time_steps); ++n)
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
  for (const Group &group : groups_of(plan.layers))
    side_by_side = std::max(side_by_side, group.count);
  CallMemory memory = memory_of(stack, arguments, schedule, static_cast<int>(side_by_side),
                                plan.chunk_rows, queue.workspace);
  Call(stack, arguments, schedule, plan, memory, queue.stream).run();
}

} // namespace cuda
} // namespace lstm_fastkernels
