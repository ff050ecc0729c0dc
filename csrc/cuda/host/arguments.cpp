#include "cuda/host/arguments.h"

#include <algorithm>
#include <type_traits>

namespace lstm_fastkernels {
namespace cuda {
namespace {

RowKind h_kind(const Call &call) {
  return call.shape.proj_size ? RowKind::any : RowKind::bounded; // a projection has no bound
}

// How h is kept between steps, or between the launches of persistent ones.
RowTarget h_target(const Call &call, const Part &p) {
  if (call.choice(p).persistent)
    return exchanged_target(p.weights.hh);
  return target_of(p.weights.hh.first(), h_kind(call));
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

// Memory that layers share, as rows for one of them.
QuantizedRows rows_for(const RowTarget &target, QuantizedRows rows) {
  rows.stride = quantized_bytes(target.arithmetic, target.columns);
  return rows;
}

// Rows of floats.
Plane state_plane(float *rows, int64_t stride) {
  Plane plane;
  plane.addressing = Plane::Addressing::chunk;
  plane.base = reinterpret_cast<uint8_t *>(rows);
  plane.row_bytes = stride * int64_t{sizeof(float)};
  return plane;
}

// Quantizes the rows of a state that are active at step s.
QuantizeArguments state_arguments(const Call &call, const Part &p, int64_t s, const Plane &in,
                                  const RowTarget &target, const QuantizedRows &out) {
  const int64_t t = call.timeline.time(s, p.direction);
  QuantizeArguments a;
  a.rows = call.rows;
  a.first = call.timeline.start(t);
  a.count = call.timeline.active(t);
  a.in = in;
  a.target = target;
  a.out = rows_for(target, out);
  return a;
}

// As the matrix itself, or U, reads them.
QuantizedRows operand(const Reading &r) {
  return r.matrix.is_low_rank() ? rows_for(target_of(r.matrix, RowKind::any), r.between.rows)
                                : rows_for(target_of(r.matrix, r.kind), r.rows);
}

int64_t active(const Call &call, const Part &p, int64_t s) {
  return call.timeline.active(call.timeline.time(s, p.direction));
}

QuantizeArguments h_after(const Call &call, const Part &p, int64_t s) {
  return state_arguments(call, p, s, state_plane(p.state.h, p.state.h_stride), h_target(call, p),
                         p.state.quantized_h);
}

} // namespace

Reading input_reading(const Call &call, const Part &p) {
  return {p.weights.ih, RowKind::any, call.timeline.rows(p.chunk, p.direction).count, p.slot.input,
          p.slot.between};
}

Reading h_reading(const Call &call, const Part &p, int64_t s) {
  return {p.weights.hh, h_kind(call), active(call, p, s), p.state.quantized_h, p.state.between};
}

Reading cell_output_reading(const Call &call, const Part &p, int64_t s) {
  return {p.weights.hr, RowKind::bounded, active(call, p, s), p.state.quantized_cell_output,
          p.state.between};
}

ProductsArguments v_arguments(const Reading &r) {
  ProductsArguments a;
  a.matrix = r.matrix.v;
  a.count = r.count;
  a.x = rows_for(target_of(r.matrix.v, r.kind), r.rows);
  a.out = r.between.products;
  return a;
}

QuantizeArguments u_arguments(const Call &call, const Reading &r) {
  QuantizeArguments a;
  a.rows = call.rows;
  a.count = r.count;
  a.in = state_plane(r.between.products, r.matrix.v.padded_rows());
  a.target = target_of(r.matrix, RowKind::any);
  a.out = operand(r);
  return a;
}

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
  a.target = h_target(call, p);
  a.quantized = rows_for(a.target, s.quantized_h);
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
  a.target = target_of(p.weights.ih.first(), RowKind::any);
  a.out = rows_for(a.target, p.slot.input);
  return a;
}

ProductsArguments input_products_arguments(const Call &call, const Part &p) {
  ProductsArguments a;
  a.matrix = p.weights.ih;
  a.bias = p.weights.bias;
  a.count = call.timeline.rows(p.chunk, p.direction).count;
  a.x = operand(input_reading(call, p));
  a.out = p.slot.gates;
  return a;
}

StepArguments step_arguments(const Call &call, const Part &p, int64_t s) {
  StepArguments a;
  a.hh = p.weights.hh;
  a.active = static_cast<int32_t>(active(call, p, s));
  a.h_in = operand(h_reading(call, p, s));
  a.input_gates =
      p.slot.gates + call.timeline.row_in(p.chunk, s, p.direction) * p.weights.hh.padded_rows();
  a.c = p.state.c;
  a.h = p.state.cell_output;
  a.units_stride = p.state.units_stride;
  return a;
}

QuantizeArguments cell_output_arguments(const Call &call, const Part &p, int64_t s) {
  return state_arguments(call, p, s, state_plane(p.state.cell_output, p.state.units_stride),
                         target_of(p.weights.hr.first(), RowKind::bounded),
                         p.state.quantized_cell_output);
}

ProductsArguments projection_arguments(const Call &call, const Part &p, int64_t s) {
  ProductsArguments a;
  a.matrix = p.weights.hr;
  a.count = active(call, p, s);
  a.x = operand(cell_output_reading(call, p, s));
  a.out = p.state.h;
  return a;
}

QuantizeArguments h_arguments(const Call &call, const Part &p, int64_t s) {
  QuantizeArguments a = h_after(call, p, s);
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
  a.h = rows_for(h_target(call, p), s.quantized_h).from(a.row_begin);
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

QuantizeArguments last_h_arguments(const Call &call, const Part &p) {
  return h_after(call, p, p.chunk.end - 1);
}

SingleStepArguments single_step_arguments(const Call &call, const Part &p) {
  SingleStepArguments a;
  a.ih = p.weights.ih;
  a.hh = p.weights.hh;
  a.bias = p.weights.bias;
  a.rows.batch = call.arguments.batch_size;
  a.rows.time_steps = 1;
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
