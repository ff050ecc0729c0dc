#include "runtime/cell_state.h"

#include <algorithm>
#include <limits>

#include "common/half.h"

namespace lstm_fastkernels {

CellState::CellState(const Call &call, Workspace &memory, int64_t cell, RowRange rows,
                     int most_members)
    : call_(call), cell_(cell), weights_(call.stack.layers[static_cast<size_t>(cell)]), rows_(rows),
      window_(std::max(window_of(weights_.ih), window_of(weights_.hh))),
      pieces_(memory, most_members), c_(memory.allocate<float>(rows.size() * call.units_per_row())),
      h_stride_(call.units_per_row()), turns_(rows.size() == 1 && call.stack.shape.proj_size == 0),
      quantized_h_(memory, weights_.hh, rows.size(), call.stack.shape.output_size(), most_members) {
  cell_output_ = h_ = memory.allocate<float>((rows.size() + turns_) * h_stride_);
  if (call.stack.shape.proj_size) {
    h_stride_ = weights_.hr.num_tiles * kTileRows;
    h_ = memory.allocate<float>(rows.size() * h_stride_);
    quantized_cell_output_.emplace(memory, weights_.hr, rows.size(), call.stack.shape.hidden_size,
                                   most_members);
  }
  load();
}

ActivationRows CellState::quantized(const Operand &to, const float *rows, int64_t stride,
                                    int64_t count, RowKind kind, const Member &member) const {
  const RowRange share = to.share(count, member);
  for (int64_t row = share.begin; row < share.end; ++row)
    to.quantize(call_.kernels, row, rows + row * stride, kind, member);
  return to.take(call_.kernels, count, member);
}

TileRange CellState::share(const Member &member) const {
  const int64_t all = weights_.hh.num_tiles;
  return {member.first(all, window_), member.last(all, window_)};
}

StepArguments CellState::begin(int64_t step, int64_t count, const Member &member) const {
  const bool projected = quantized_cell_output_.has_value();
  StepArguments a;
  a.rows = count;
  a.h_in = quantized(quantized_h_, h_of(step), h_stride_, count,
                     projected ? RowKind::any : RowKind::bounded, member); // projected: no bound
  a.c = c_;
  a.h = projected ? cell_output_ : h_of(step + 1);
  return a;
}

void CellState::end(int64_t step, int64_t count, const Member &member) const {
  if (quantized_cell_output_) {
    member.meet();
    const ActivationRows outputs =
        quantized(*quantized_cell_output_, cell_output_, call_.units_per_row(), count,
                  RowKind::bounded, member);
    const TileRange tiles = share_of(weights_.hr, member);
    call_.kernels.products(weights_.hr, tiles, nullptr, count, outputs,
                           {h_of(step + 1) + tiles.begin * kTileRows, h_stride_});
  }
  member.meet();
}

RowRange CellState::share_of_output(const Member &member) const {
  const bool projected = quantized_cell_output_.has_value();
  const TileRange tiles = projected ? share_of(weights_.hr, member) : share(member);
  const int64_t columns = projected ? kTileRows : kTileUnits, all = call_.stack.shape.output_size();
  return {std::min(tiles.begin * columns, all), std::min(tiles.end * columns, all)};
}

void CellState::store(int64_t steps) const {
  const LstmArguments &a = call_.arguments;
  const LstmShape &shape = call_.stack.shape;
  for (int64_t row = 0; row < rows_.size(); ++row) {
    narrow(output(steps, row), shape.output_size(), a.state_type,
           caller_row(a.h_n, shape.output_size(), row));
    narrow(c_ + row * call_.units_per_row(), shape.hidden_size, a.state_type,
           caller_row(a.c_n, shape.hidden_size, row));
  }
}

uint8_t *CellState::caller_row(const void *state, int64_t columns, int64_t row) const {
  const LstmArguments &a = call_.arguments;
  const int64_t index = call_.state_rows.at(cell_, call_.schedule.caller_row(rows_.begin + row));
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
