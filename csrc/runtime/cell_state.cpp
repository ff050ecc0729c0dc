#include "runtime/cell_state.h"

#include <algorithm>
#include <limits>

#include "common/half.h"

namespace lstm_fastkernels {

CellState::CellState(const Call &call, Workspace &memory, int64_t cell, RowRange rows)
    : call_(call), cell_(cell), weights_(call.stack.layers[static_cast<size_t>(cell)]), rows_(rows),
      c_(memory.allocate<float>(rows.size() * call.units_per_row())),
      cell_output_(memory.allocate<float>(rows.size() * call.units_per_row())), h_(cell_output_),
      h_stride_(call.units_per_row()),
      quantized_h_(memory, weights_.hh, rows.size(), call.stack.shape.output_size()) {
  if (call.stack.shape.proj_size) {
    h_stride_ = weights_.hr.num_tiles * kTileRows;
    h_ = memory.allocate<float>(rows.size() * h_stride_);
    quantized_cell_output_.emplace(memory, weights_.hr, rows.size(), call.stack.shape.hidden_size);
  }
  load();
}

void CellState::step(int64_t count, const float *input_gates) {
  const LstmShape &shape = call_.stack.shape;
  const RowKind h_kind = shape.proj_size ? RowKind::any : RowKind::bounded; // projected: no bound
  for (int64_t row = 0; row < count; ++row)
    quantized_h_.quantize(call_.kernels, row, output(row), h_kind);
  StepArguments a;
  a.rows = count;
  a.h_in = quantized_h_.take(call_.kernels, count);
  a.input_gates = input_gates;
  a.c = c_;
  a.h = cell_output_;
  call_.kernels.step(weights_.hh, all_tiles(weights_.hh), a);
  if (!quantized_cell_output_)
    return;
  for (int64_t row = 0; row < count; ++row)
    quantized_cell_output_->quantize(call_.kernels, row, cell_output_ + row * call_.units_per_row(),
                                     RowKind::bounded);
  call_.kernels.products(weights_.hr, all_tiles(weights_.hr), nullptr, count,
                         quantized_cell_output_->take(call_.kernels, count), h_);
}

void CellState::store() const {
  const LstmArguments &a = call_.arguments;
  const LstmShape &shape = call_.stack.shape;
  for (int64_t row = 0; row < rows_.size(); ++row) {
    narrow(output(row), shape.output_size(), a.state_type,
           caller_row(a.h_n, shape.output_size(), row));
    narrow(c_ + row * call_.units_per_row(), shape.hidden_size, a.state_type,
           caller_row(a.c_n, shape.hidden_size, row));
  }
}

uint8_t *CellState::caller_row(const void *state, int64_t columns, int64_t row) const {
  const LstmArguments &a = call_.arguments;
  const int64_t index = cell_ * a.batch_size + call_.schedule.caller_row(rows_.begin + row);
  return static_cast<uint8_t *>(const_cast<void *>(state)) +
         index * columns * bytes_of(a.state_type);
}

void CellState::load() {
  const LstmArguments &a = call_.arguments;
  const LstmShape &shape = call_.stack.shape;
  std::fill_n(c_, rows_.size() * call_.units_per_row(), 0.0f);
  std::fill_n(h_, rows_.size() * h_stride_, 0.0f);
  for (int64_t row = 0; a.h0 && row < rows_.size(); ++row) {
    float *c = c_ + row * call_.units_per_row();
    float *h = h_ + row * h_stride_;
    widen(caller_row(a.h0, shape.output_size(), row), a.state_type, shape.output_size(), h);
    widen(caller_row(a.c0, shape.hidden_size, row), a.state_type, shape.hidden_size, c);
    // A non-finite c0 makes its row NaN as a non-finite h0 does.
    if (!all_finite(c, shape.hidden_size))
      *h = std::numeric_limits<float>::quiet_NaN();
  }
}

} // namespace lstm_fastkernels
