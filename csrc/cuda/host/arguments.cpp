#include "cuda/host/arguments.h"

#include <algorithm>
#include <type_traits>

namespace lstm_fastkernels {
namespace cuda {
namespace {

// Lower bounds of the magnitude that gives a row its scale: of h, and of a layer's input.
float h_min_absmax(const Call &call) { return call.shape.proj_size ? 0.0f : 1.0f; }
float input_min_absmax(const Call &call, int64_t layer) {
  return layer == 0 ? 0.0f : h_min_absmax(call);
}

Plane output(const Call &call, const Part &p) {
  return call.output(p.layer).columns_from(p.direction * call.shape.output_size());
}

// The first row of a part's state in the caller's memory.
template <class T> T *state_rows(const Call &call, T *states, const Part &p, int64_t columns) {
  using Byte = std::conditional_t<std::is_const_v<T>, const uint8_t, uint8_t>;
  const int64_t rows =
      (p.layer * call.shape.num_directions + p.direction) * call.arguments.batch_size;
  return states ? static_cast<Byte *>(states) + rows * columns * bytes_of(call.arguments.state_type)
                : nullptr;
}

QuantizedRows quantized_input(const Call &call, const Part &p) {
  QuantizedRows rows = p.slot.input;
  rows.stride = quantized_bytes(call.stack.arithmetic, call.shape.layer_input_size(p.layer));
  return rows;
}

} // namespace

LoadStateArguments load_state_arguments(const Call &call, const Part &p) {
  const LayerState &s = p.state;
  LoadStateArguments a;
  a.rows = call.rows;
  a.h0 = state_rows(call, call.arguments.h0, p, call.shape.output_size());
  a.c0 = state_rows(call, call.arguments.c0, p, call.shape.hidden_size);
  a.type = call.arguments.state_type;
  a.h_columns = static_cast<int32_t>(call.shape.output_size());
  a.c_columns = static_cast<int32_t>(call.shape.hidden_size);
  a.h = s.h;
  a.c = s.c;
  a.h_stride = s.h_stride;
  a.c_stride = s.units_stride;
  a.quantized[0] = s.quantized[0];
  if (!call.shape.proj_size)
    a.quantized[1] = s.quantized[1];
  a.first_scales = s.first_scales;
  a.min_absmax = h_min_absmax(call);
  a.activation_max = p.weights.hh.activation_max;
  a.unprojected = s.unprojected;
  a.unprojected_max = p.weights.hr.activation_max;
  return a;
}

StoreStateArguments store_state_arguments(const Call &call, const Part &p) {
  const LayerState &s = p.state;
  StoreStateArguments a;
  a.rows = call.rows;
  a.h = s.h;
  a.c = s.c;
  a.h_stride = s.h_stride;
  a.c_stride = s.units_stride;
  a.h_columns = static_cast<int32_t>(call.shape.output_size());
  a.c_columns = static_cast<int32_t>(call.shape.hidden_size);
  a.h_n = state_rows(call, call.arguments.h_n, p, call.shape.output_size());
  a.c_n = state_rows(call, call.arguments.c_n, p, call.shape.hidden_size);
  a.type = call.arguments.state_type;
  return a;
}

QuantizeArguments input_arguments(const Call &call, const Part &p) {
  const RowSpan rows = call.timeline.rows(p.chunk, p.direction);
  QuantizeArguments a;
  a.rows = call.rows;
  a.first = rows.first;
  a.count = rows.count;
  a.in = call.input(p.layer);
  a.columns = static_cast<int32_t>(call.shape.layer_input_size(p.layer));
  a.out = quantized_input(call, p);
  a.min_absmax = input_min_absmax(call, p.layer);
  a.activation_max = p.weights.ih.activation_max;
  return a;
}

ProductsArguments input_products_arguments(const Call &call, const Part &p) {
  ProductsArguments a;
  a.matrix = p.weights.ih;
  a.bias = p.weights.bias;
  a.count = call.timeline.rows(p.chunk, p.direction).count;
  a.x = quantized_input(call, p);
  a.out = p.slot.gates;
  return a;
}

StepArguments step_arguments(const Call &call, const Part &p, int64_t s) {
  const bool projected = call.shape.proj_size > 0;
  const int64_t t = call.timeline.time(s, p.direction);
  const int64_t row = call.timeline.row_in(p.chunk, s, p.direction);
  StepArguments a;
  a.rows = call.rows;
  a.hh = p.weights.hh;
  a.t = t;
  a.active = static_cast<int32_t>(call.timeline.active(t));
  a.hidden_size = static_cast<int32_t>(call.shape.hidden_size);
  a.h_in = p.state.quantized[s % 2];
  a.first_scales = p.state.first_scales;
  a.first_row = static_cast<int32_t>(call.timeline.first_row(s, p.direction));
  a.input_gates = p.slot.gates + row * p.weights.hh.padded_rows();
  a.c = p.state.c;
  a.h = p.state.cell_output;
  a.units_stride = p.state.units_stride;
  a.h_out = projected ? p.state.unprojected : p.state.quantized[(s + 1) % 2];
  a.h_out_max = (projected ? p.weights.hr : p.weights.hh).activation_max;
  if (!projected)
    a.y = output(call, p);
  a.y_chunk_row = row;
  return a;
}

ProductsArguments projection_arguments(const Call &call, const Part &p, int64_t s) {
  ProductsArguments a;
  a.matrix = p.weights.hr;
  a.count = call.timeline.active(call.timeline.time(s, p.direction));
  a.x = p.state.unprojected;
  a.out = p.state.h;
  return a;
}

QuantizeArguments projected_arguments(const Call &call, const Part &p, int64_t s) {
  const int64_t t = call.timeline.time(s, p.direction);
  QuantizeArguments a;
  a.rows = call.rows;
  a.first = call.timeline.start(t);
  a.count = call.timeline.active(t);
  a.in.addressing = Plane::Addressing::chunk;
  a.in.base = reinterpret_cast<uint8_t *>(p.state.h);
  a.in.row_bytes = p.state.h_stride * int64_t{sizeof(float)};
  a.columns = static_cast<int32_t>(call.shape.proj_size);
  a.out = p.state.quantized[0];
  a.min_absmax = h_min_absmax(call);
  a.activation_max = p.weights.hh.activation_max;
  a.copy = output(call, p);
  a.copy_chunk_row = call.timeline.row_in(p.chunk, s, p.direction);
  return a;
}

PersistentArguments persistent_arguments(const Call &call, const Part &p, int64_t range) {
  const PersistentShape &shape = call.choice(p).shape;
  const LayerState &s = p.state;
  PersistentArguments a;
  a.rows = call.rows;
  a.row_begin = range * shape.rows;
  a.num_rows =
      static_cast<int32_t>(std::min<int64_t>(shape.rows, call.arguments.batch_size - a.row_begin));
  a.hh = p.weights.hh;
  a.begin = p.chunk.begin;
  a.end = p.chunk.end;
  a.reverse = static_cast<int32_t>(p.direction);
  a.fragments = shape.fragments;
  a.hidden_size = static_cast<int32_t>(call.shape.hidden_size);
  for (int i = 0; i < 2; ++i)
    a.h[i] = s.quantized[i].from(a.row_begin);
  a.first_scales = s.first_scales + a.row_begin;
  a.c = s.c + a.row_begin * s.units_stride;
  a.last_h = s.h + a.row_begin * s.units_stride;
  a.units_stride = s.units_stride;
  a.input_gates = p.slot.gates;
  a.first_row = call.timeline.rows(p.chunk, p.direction).first;
  a.y = output(call, p);
  a.packets = p.slot.packets + range * range_packets(a.hh, shape.rows);
  a.epoch = p.slot.epoch;
  a.failed = call.plan.failed;
  a.patience_ns = call.plan.patience_ns;
  return a;
}

SingleStepArguments single_step_arguments(const Call &call, const Part &p) {
  SingleStepArguments a;
  a.ih = p.weights.ih;
  a.hh = p.weights.hh;
  a.bias = p.weights.bias;
  a.rows.batch = call.arguments.batch_size;
  a.rows.time_steps = 1;
  a.input_size = static_cast<int32_t>(call.shape.layer_input_size(p.layer));
  a.hidden_size = static_cast<int32_t>(call.shape.hidden_size);
  a.x_min_absmax = input_min_absmax(call, p.layer);
  a.x = call.input(p.layer);
  a.y = output(call, p);
  a.h0 = state_rows(call, call.arguments.h0, p, call.shape.hidden_size);
  a.c0 = state_rows(call, call.arguments.c0, p, call.shape.hidden_size);
  a.h_n = state_rows(call, call.arguments.h_n, p, call.shape.hidden_size);
  a.c_n = state_rows(call, call.arguments.c_n, p, call.shape.hidden_size);
  a.state_type = call.arguments.state_type;
  return a;
}

} // namespace cuda
} // namespace lstm_fastkernels
