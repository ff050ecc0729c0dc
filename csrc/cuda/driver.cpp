#include "driver.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "fail.h"
#include "plain_kernels.h"
#include "plane.h"
#include "single_step.h"

namespace lstm_fastkernels {
namespace cuda {
namespace {

constexpr int64_t kWorkspaceAlignment = 256;
constexpr int64_t kClearedPackets = 64; // by a warp

// Input products of a row.
int64_t gate_row_bytes(const PackedStack &stack) {
  return stack.layers[0].hh.padded_rows() * int64_t{sizeof(float)};
}

// Hands out a call's scratch memory. Without memory it only counts.
class Workspace {
public:
  explicit Workspace(void *base) : base_(static_cast<uint8_t *>(base)) {}

  template <class T> T *take(int64_t count) {
    const int64_t at = used_;
    used_ += round_up(count * int64_t{sizeof(T)}, kWorkspaceAlignment);
    return base_ ? reinterpret_cast<T *>(base_ + at) : nullptr;
  }
  QuantizedRows take_rows(Form form, int64_t rows, int64_t columns) {
    QuantizedRows taken;
    taken.stride = quantized_bytes(form, columns);
    taken.data = take<uint8_t>(rows * taken.stride);
    taken.scales = take<float>(rows);
    return taken;
  }
  int64_t used() const { return used_; }

private:
  uint8_t *base_;
  int64_t used_ = 0;
};

// One layer and direction between its steps.
struct State {
  float *c = nullptr;
  float *cell_output = nullptr; // o tanh(c)
  float *h = nullptr;           // the output: cell_output, or its projection
  int64_t units_stride = 0, h_stride = 0;
  // h, as read and as written by a step, taking turns; only the first where a projection stands
  // between writing and reading.
  QuantizedRows quantized[2];
  float *first_scales = nullptr; // of h0
  QuantizedRows unprojected;
};

// What a layer's steps find ready: their input, quantized and multiplied.
struct Chunk {
  int64_t begin = 0, end = 0; // steps in the direction of travel
  QuantizedRows input[2];
  float *gates[2] = {};
};

class Call {
public:
  Call(const PackedStack &stack, const LstmArguments &a, const Schedule &schedule, const Plan &plan,
       void *workspace)
      : stack_(stack), shape_(stack.shape), a_(a), schedule_(schedule), plan_(plan),
        memory_(workspace) {
    rows_.batch = a.batch_size;
    rows_.time_steps = a.time_steps;
    rows_.count = all_rows();
    starts_ = take_copy(schedule.starts());
    order_ = take_copy(schedule.order());
    rows_.starts = starts_;
    rows_.order = order_;
    for (int64_t i = 0; i < shape_.num_directions * layers_at_once(); ++i)
      states_.push_back(take_state(i));
    most_rows_ =
        rows_a_chunk(plan.chunk_bytes ? plan.chunk_bytes : chunk_bytes_for(stack, a.batch_size));
    for (int d = 0; d < shape_.num_directions; ++d) {
      const int64_t widest = std::max(shape_.input_size, inner_width());
      chunk_.input[d] = memory_.take_rows(stack.form, most_rows_, widest);
      chunk_.gates[d] = memory_.take<float>(most_rows_ * stack.layers[0].hh.padded_rows());
    }
    if (shape_.num_layers > 1)
      for (int64_t i = 0; i < 2; ++i)
        between_[i] =
            memory_.take<float>((two_directions() ? all_rows() : most_rows_) * inner_width());
    num_packets_ = round_up(most_packets(stack.layers[0].hh, a.batch_size), kClearedPackets);
    packets_ = memory_.take<device::Words4>(num_packets_ * shape_.num_directions);
  }

  int64_t workspace_bytes() const { return memory_.used(); }

  void run(void *stream) {
    stream_ = stream;
    if (plan_.single_step)
      return run_single_step();
    if (starts_)
      upload(schedule_.starts().data(), a_.time_steps, starts_, stream);
    if (order_) {
      upload(schedule_.order().data(), a_.batch_size, order_, stream);
      clear_rows(y_plane(a_), a_.time_steps, a_.batch_size,
                 shape_.num_directions * shape_.output_size(), stream);
    }
    for (const Choice &choice : plan_.layers)
      if (choice.persistent && !choice.shape.cluster) {
        clear_packets();
        break;
      }
    if (two_directions())
      run_bidirectional();
    else
      run_forward();
  }

private:
  bool two_directions() const { return shape_.num_directions == 2; }
  // Without a second direction, chunks go through all layers, whose states are alive together.
  int64_t layers_at_once() const { return two_directions() ? 1 : shape_.num_layers; }
  // Columns between two layers.
  int64_t inner_width() const { return shape_.num_directions * shape_.output_size(); }
  int directions() const { return static_cast<int>(shape_.num_directions); }
  float h_floor() const { return shape_.proj_size ? 0.0f : 1.0f; }
  float input_floor(int64_t layer) const { return layer == 0 ? 0.0f : h_floor(); }

  const PackedLayer &weights(int64_t layer, int64_t d) const {
    return stack_.layers[static_cast<size_t>(layer * shape_.num_directions + d)];
  }
  State &state(int64_t layer, int64_t d) {
    return states_[static_cast<size_t>(layer % layers_at_once() * shape_.num_directions + d)];
  }

  int64_t *take_copy(const std::vector<int64_t> &values) {
    return values.empty() ? nullptr : memory_.take<int64_t>(static_cast<int64_t>(values.size()));
  }

  State take_state(int64_t index) {
    const PackedLayer &of = stack_.layers[static_cast<size_t>(index)];
    const int64_t rows = a_.batch_size;
    State s;
    s.units_stride = of.hh.num_tiles * kStripHeight;
    s.c = memory_.take<float>(rows * s.units_stride);
    s.h = s.cell_output = memory_.take<float>(rows * s.units_stride);
    s.h_stride = s.units_stride;
    for (QuantizedRows &quantized : s.quantized)
      quantized = memory_.take_rows(stack_.form, rows, shape_.output_size());
    s.first_scales = memory_.take<float>(rows);
    if (shape_.proj_size) {
      s.h_stride = of.hr.padded_rows();
      s.h = memory_.take<float>(rows * s.h_stride);
      s.unprojected = memory_.take_rows(stack_.form, rows, shape_.hidden_size);
      s.quantized[1] = s.quantized[0];
      s.first_scales = s.quantized[0].scales;
    }
    return s;
  }

  int64_t all_rows() const {
    return schedule_.start(a_.time_steps - 1) + active(a_.time_steps - 1);
  }
  int64_t active(int64_t t) const { return schedule_.active(t); }
  int64_t time(int64_t step, int64_t d) const { return d ? a_.time_steps - 1 - step : step; }
  // Rows before time step t, which may be the end.
  int64_t start(int64_t t) const { return t < a_.time_steps ? schedule_.start(t) : all_rows(); }

  int64_t rows_a_chunk(int64_t bytes) const {
    return std::max(a_.batch_size, std::min(bytes / gate_row_bytes(stack_), all_rows()));
  }

  // The time steps of a chunk, from the lower one on, and how many rows they have.
  struct Span {
    int64_t first_row, count;
  };
  Span span(int64_t begin, int64_t end, int64_t d) const {
    const int64_t low = d ? a_.time_steps - end : begin, high = low + end - begin;
    return {start(low), start(high) - start(low)};
  }

  // Steps from `begin` on, at least one, whose rows fit a chunk in every direction.
  void next_chunk() {
    chunk_.begin = chunk_.end++;
    const auto fits = [&](int64_t end) {
      for (int64_t d = 0; d < shape_.num_directions; ++d)
        if (span(chunk_.begin, end, d).count > most_rows_)
          return false;
      return true;
    };
    while (chunk_.end < a_.time_steps && chunk_.end - chunk_.begin < kMostSteps &&
           fits(chunk_.end + 1))
      ++chunk_.end;
  }

  Plane between(int64_t i) const {
    Plane plane;
    plane.addressing = two_directions() ? Plane::Addressing::gapless : Plane::Addressing::chunk;
    plane.base = reinterpret_cast<uint8_t *>(between_[i]);
    plane.row_bytes = inner_width() * int64_t{sizeof(float)};
    return plane;
  }

  void run_single_step() {
    Rows rows;
    rows.batch = a_.batch_size;
    rows.time_steps = 1;
    for (int64_t layer = 0; layer < shape_.num_layers; ++layer) {
      const Plane out = layer + 1 == shape_.num_layers ? y_plane(a_) : between(layer % 2);
      cuda::single_step(stack_.form, both<SingleStepArguments>([&](int64_t d) {
                          const PackedLayer &w = weights(layer, d);
                          SingleStepArguments s;
                          s.ih = w.ih;
                          s.hh = w.hh;
                          s.bias = w.bias;
                          s.rows = rows;
                          s.input_size = static_cast<int32_t>(shape_.layer_input_size(layer));
                          s.hidden_size = static_cast<int32_t>(shape_.hidden_size);
                          s.x_floor = input_floor(layer);
                          s.x = layer == 0 ? x_plane(a_) : between((layer - 1) % 2);
                          s.y = out.columns_from(d * shape_.hidden_size);
                          s.h0 = state_rows(a_.h0, layer, d, shape_.hidden_size);
                          s.c0 = state_rows(a_.c0, layer, d, shape_.hidden_size);
                          s.h_n = state_rows(a_.h_n, layer, d, shape_.hidden_size);
                          s.c_n = state_rows(a_.c_n, layer, d, shape_.hidden_size);
                          s.state_type = a_.state_type;
                          return s;
                        }),
                        stream_);
    }
  }

  void clear_packets() {
    Plane packets;
    packets.base = reinterpret_cast<uint8_t *>(packets_);
    packets.row_bytes = kClearedPackets * int64_t{sizeof(device::Words4)};
    clear_rows(packets, 1, num_packets_ * shape_.num_directions / kClearedPackets,
               packets.row_bytes / int64_t{sizeof(float)}, stream_);
  }

  // Every chunk goes through all layers.
  void run_forward() {
    for (int64_t layer = 0; layer < shape_.num_layers; ++layer)
      load(layer);
    const Plane x = x_plane(a_), y = y_plane(a_);
    while (chunk_.end < a_.time_steps) {
      next_chunk();
      for (int64_t layer = 0; layer < shape_.num_layers; ++layer)
        run_chunk(layer, layer == 0 ? x : between(0),
                  layer + 1 == shape_.num_layers ? y : between(0));
    }
    for (int64_t layer = 0; layer < shape_.num_layers; ++layer)
      store(layer);
  }

  // Both directions of a layer need all of the layer below.
  void run_bidirectional() {
    for (int64_t layer = 0; layer < shape_.num_layers; ++layer) {
      const Plane in = layer == 0 ? x_plane(a_) : between((layer - 1) % 2);
      const Plane out = layer + 1 == shape_.num_layers ? y_plane(a_) : between(layer % 2);
      load(layer);
      for (chunk_.end = 0; chunk_.end < a_.time_steps;) {
        next_chunk();
        run_chunk(layer, in, out);
      }
      store(layer);
    }
  }

  template <class T, class Make> Both<T> both(const Make &make) {
    Both<T> arguments;
    arguments.directions = directions();
    for (int d = 0; d < directions(); ++d)
      arguments.of[d] = make(d);
    return arguments;
  }

  // Where a state of a layer and direction begins at the caller's; the first of its rows.
  template <class T> T *state_rows(T *states, int64_t layer, int64_t d, int64_t columns) const {
    using Byte = std::conditional_t<std::is_const_v<T>, const uint8_t, uint8_t>;
    const int64_t rows = (layer * shape_.num_directions + d) * a_.batch_size;
    return states ? static_cast<Byte *>(states) + rows * columns * bytes_of(a_.state_type)
                  : nullptr;
  }

  void load(int64_t layer) {
    load_state(stack_.form, both<LoadStateArguments>([&](int64_t d) {
                 const State &s = state(layer, d);
                 LoadStateArguments l;
                 l.rows = rows_;
                 l.h0 = state_rows(a_.h0, layer, d, shape_.output_size());
                 l.c0 = state_rows(a_.c0, layer, d, shape_.hidden_size);
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
                 l.activation_max = weights(layer, d).hh.activation_max;
                 l.unprojected = s.unprojected;
                 l.unprojected_max = weights(layer, d).hr.activation_max;
                 return l;
               }),
               stream_);
  }

  void store(int64_t layer) {
    store_state(both<StoreStateArguments>([&](int64_t d) {
                  const State &s = state(layer, d);
                  StoreStateArguments e;
                  e.rows = rows_;
                  e.h = s.h;
                  e.c = s.c;
                  e.h_stride = s.h_stride;
                  e.c_stride = s.units_stride;
                  e.h_columns = static_cast<int32_t>(shape_.output_size());
                  e.c_columns = static_cast<int32_t>(shape_.hidden_size);
                  e.h_n = state_rows(a_.h_n, layer, d, shape_.output_size());
                  e.c_n = state_rows(a_.c_n, layer, d, shape_.hidden_size);
                  e.type = a_.state_type;
                  return e;
                }),
                stream_);
  }

  void run_chunk(int64_t layer, const Plane &in, const Plane &out) {
    quantize_rows(stack_.form, both<QuantizeArguments>([&](int64_t d) {
                    const Span rows = span(chunk_.begin, chunk_.end, d);
                    QuantizeArguments q;
                    q.rows = rows_;
                    q.first = rows.first_row;
                    q.count = rows.count;
                    q.in = in;
                    q.columns = static_cast<int32_t>(shape_.layer_input_size(layer));
                    q.out = input(layer, d);
                    q.floor = input_floor(layer);
                    q.activation_max = weights(layer, d).ih.activation_max;
                    return q;
                  }),
                  stream_);
    products(stack_.form, both<ProductsArguments>([&](int64_t d) {
               ProductsArguments p;
               p.matrix = weights(layer, d).ih;
               p.bias = weights(layer, d).bias;
               p.count = span(chunk_.begin, chunk_.end, d).count;
               p.x = input(layer, d);
               p.out = chunk_.gates[d];
               return p;
             }),
             stream_);
    if (plan_.layers[static_cast<size_t>(layer)].persistent)
      return run_steps(layer, out);
    for (int64_t s = chunk_.begin; s < chunk_.end; ++s)
      run_step(layer, s, out);
  }

  // All steps of the chunk at once.
  void run_steps(int64_t layer, const Plane &out) {
    run_persistent(plan_.layers[static_cast<size_t>(layer)].shape,
                   both<PersistentArguments>([&](int64_t d) {
                     const State &s = state(layer, d);
                     PersistentArguments p;
                     p.rows = rows_;
                     p.hh = weights(layer, d).hh;
                     p.begin = chunk_.begin;
                     p.end = chunk_.end;
                     p.reverse = static_cast<int32_t>(d);
                     p.hidden_size = static_cast<int32_t>(shape_.hidden_size);
                     p.h[0] = s.quantized[0];
                     p.h[1] = s.quantized[1];
                     p.first_scales = s.first_scales;
                     p.input_gates = chunk_.gates[d];
                     p.first_row = span(chunk_.begin, chunk_.end, d).first_row;
                     p.c = s.c;
                     p.last_h = s.h;
                     p.units_stride = s.units_stride;
                     p.y = out.columns_from(d * shape_.output_size());
                     p.packets = packets_ + d * num_packets_;
                     p.epoch = epoch_;
                     p.failed = plan_.failed;
                     p.patience_ns = plan_.patience_ns;
                     return p;
                   }),
                   stream_);
    epoch_ += static_cast<uint32_t>(chunk_.end - chunk_.begin);
  }

  QuantizedRows input(int64_t layer, int64_t d) const {
    QuantizedRows rows = chunk_.input[d];
    rows.stride = quantized_bytes(stack_.form, shape_.layer_input_size(layer));
    return rows;
  }

  void run_step(int64_t layer, int64_t s, const Plane &out) {
    const auto columns_of = [&](int64_t d) { return out.columns_from(d * shape_.output_size()); };
    const auto chunk_row = [&](int64_t d) {
      return start(time(s, d)) - span(chunk_.begin, chunk_.end, d).first_row;
    };
    step(stack_.form, both<StepArguments>([&](int64_t d) {
           const State &state_of = state(layer, d);
           const PackedLayer &w = weights(layer, d);
           const int64_t t = time(s, d);
           StepArguments e;
           e.rows = rows_;
           e.hh = w.hh;
           e.t = t;
           e.active = static_cast<int32_t>(active(t));
           e.hidden_size = static_cast<int32_t>(shape_.hidden_size);
           e.h_in = state_of.quantized[s % 2];
           e.first_scales = state_of.first_scales;
           e.first_row = static_cast<int32_t>(first_row(s, d));
           e.input_gates = chunk_.gates[d] + chunk_row(d) * w.hh.padded_rows();
           e.c = state_of.c;
           e.h = state_of.cell_output;
           e.units_stride = state_of.units_stride;
           e.h_out = shape_.proj_size ? state_of.unprojected : state_of.quantized[(s + 1) % 2];
           e.h_out_max = (shape_.proj_size ? w.hr : w.hh).activation_max;
           if (!shape_.proj_size)
             e.y = columns_of(d);
           e.y_chunk_row = chunk_row(d);
           return e;
         }),
         stream_);
    if (!shape_.proj_size)
      return;
    products(stack_.form, both<ProductsArguments>([&](int64_t d) {
               ProductsArguments p;
               p.matrix = weights(layer, d).hr;
               p.count = active(time(s, d));
               p.x = state(layer, d).unprojected;
               p.out = state(layer, d).h;
               return p;
             }),
             stream_);
    quantize_rows(stack_.form, both<QuantizeArguments>([&](int64_t d) {
                    const State &state_of = state(layer, d);
                    QuantizeArguments q;
                    q.rows = rows_;
                    q.first = start(time(s, d));
                    q.count = active(time(s, d));
                    q.in.addressing = Plane::Addressing::chunk;
                    q.in.base = reinterpret_cast<uint8_t *>(state_of.h);
                    q.in.row_bytes = state_of.h_stride * int64_t{sizeof(float)};
                    q.columns = static_cast<int32_t>(shape_.proj_size);
                    q.out = state_of.quantized[0];
                    q.floor = h_floor();
                    q.activation_max = weights(layer, d).hh.activation_max;
                    q.copy = columns_of(d);
                    q.copy_chunk_row = chunk_row(d);
                    return q;
                  }),
                  stream_);
  }

  // Rows from this one on start at step s.
  int64_t first_row(int64_t s, int64_t d) const {
    if (s == 0)
      return 0;
    return d ? active(time(s, d) + 1) : a_.batch_size;
  }

  const PackedStack &stack_;
  const LstmShape &shape_;
  const LstmArguments &a_;
  const Schedule &schedule_;
  const Plan &plan_;
  Workspace memory_;
  Rows rows_;
  int64_t *starts_ = nullptr, *order_ = nullptr; // on the device
  std::vector<State> states_;
  int64_t most_rows_ = 0;
  Chunk chunk_;
  float *between_[2] = {}; // what one layer gives to the next
  device::Words4 *packets_ = nullptr;
  int64_t num_packets_ = 0; // of a direction
  uint32_t epoch_ = 0;      // steps that went through them
  void *stream_ = nullptr;
};

} // namespace

int64_t chunk_bytes_for(const PackedStack &stack, int64_t batch) {
  const int64_t few_steps =
      batch <= kPersistentRows ? kFewestChunkSteps * batch * gate_row_bytes(stack) : 0;
  return std::max(int64_t{32} << 20, few_steps);
}

int64_t workspace_of(const PackedStack &stack, const LstmArguments &arguments,
                     const Schedule &schedule, int64_t chunk_bytes) {
  Plan plan;
  plan.chunk_bytes = chunk_bytes;
  return Call(stack, arguments, schedule, plan, nullptr).workspace_bytes();
}

void run(const PackedStack &stack, const LstmArguments &arguments, const Schedule &schedule,
         const Plan &plan, const Queue &queue) {
  Call call(stack, arguments, schedule, plan, queue.workspace);
  const int64_t needed = call.workspace_bytes();
  const int64_t given = queue.workspace ? static_cast<int64_t>(queue.workspace_bytes) : 0;
  if (given < needed)
    fail("the workspace must have " + std::to_string(needed) + " bytes, got " +
         std::to_string(given));
  if (reinterpret_cast<uintptr_t>(queue.workspace) % kWorkspaceAlignment)
    fail("the workspace must be aligned to " + std::to_string(kWorkspaceAlignment) + " bytes");
  call.run(queue.stream);
}

} // namespace cuda
} // namespace lstm_fastkernels
