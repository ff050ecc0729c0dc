#include "runtime/direction.h"

#include <algorithm>

namespace lstm_fastkernels {

Direction::Direction(const Call &call, Workspace &memory, int64_t layer, int64_t direction,
                     RowRange rows, int64_t most_rows, int most_members)
    : call_(call), reverse_(direction == 1), rows_(rows),
      cell_(layer * call.stack.shape.num_directions + direction),
      ih_(call.stack.layers[static_cast<size_t>(cell_)].ih),
      bias_(call.stack.layers[static_cast<size_t>(cell_)].bias),
      columns_(call.stack.shape.layer_input_size(layer)),
      state_(call, memory, cell_, rows, most_members), steps_(call.arguments.time_steps) {
  if (!is_table(ih_.arithmetic)) {
    input_.emplace(memory, ih_, most_rows, columns_, most_members);
    widened_ = memory.allocate<float>(most_members * columns_);
  }
  while (steps_ > 0 && active(steps_ - 1) == 0)
    --steps_;
}

int64_t Direction::active(int64_t t) const {
  return std::clamp<int64_t>(call_.schedule.active(t) - rows_.begin, 0, rows_.size());
}

Chunk Direction::next_chunk(int64_t begin, int64_t most_rows) const {
  int64_t end = begin, rows = 0;
  do
    rows += active(time(end++));
  while (end < call_.arguments.time_steps && rows + active(time(end)) <= most_rows);
  return {begin, end};
}

template <class Visit>
void Direction::for_each_row(Chunk chunk, RowRange range, const Plane &in,
                             const Visit &visit) const {
  int64_t first = 0;
  for (int64_t s = chunk.begin; s < chunk.end && first < range.end; ++s) {
    const int64_t n = active(time(s)), end = std::min(n, range.end - first);
    for (int64_t row = std::max<int64_t>(range.begin - first, 0); row < end; ++row)
      visit(first + row, in.at(call_.schedule, time(s), rows_.begin + row, first + row));
    first += n;
  }
}

void Direction::run(Chunk chunk, const Plane &in, const Plane &out, float *gates,
                    const Member &member) const noexcept {
  int64_t rows = 0;
  for (int64_t s = chunk.begin; s < chunk.end; ++s)
    rows += active(time(s));
  if (input_)
    multiply(chunk, rows, in, gates, member);
  else
    look_up_ids(chunk, rows, in, gates, member);

  const RowRange share = state_.share_of_output(member);
  int64_t first = 0;
  for (int64_t s = chunk.begin; s < chunk.end; ++s) {
    const int64_t n = active(time(s));
    if (n == 0)
      continue; // rows that have ended, or not begun
    const int64_t step = step_of(s);
    state_.step(step, n, gates + first * call_.gates_per_row(), member);
    for (int64_t row = 0; row < n; ++row)
      narrow(state_.output(step + 1, row) + share.begin, share.size(), out.type,
             out.at(call_.schedule, time(s), rows_.begin + row, first + row) +
                 share.begin * bytes_of(out.type));
    first += n;
  }
  member.meet();
}

void Direction::multiply(Chunk chunk, int64_t rows, const Plane &in, float *gates,
                         const Member &member) const {
  float *const widened = widened_ + member.index() * columns_;
  for_each_row(chunk, input_->share(rows, member), in, [&](int64_t chunk_row, const uint8_t *row) {
    quantize_input(row, in.type, chunk_row, widened, member);
  });
  call_.kernels.products(ih_, share_of(ih_, member), bias_, rows,
                         input_->take(call_.kernels, rows, member), gates);
  // Members go on with the gates that they made, unless the two matrices are shared out
  // otherwise.
  if (ih_.is_sparse() != call_.stack.layers[static_cast<size_t>(cell_)].hh.is_sparse())
    member.meet();
}

void Direction::look_up_ids(Chunk chunk, int64_t rows, const Plane &in, float *gates,
                            const Member &member) const {
  const RowRange share{member.first(rows), member.last(rows)};
  for_each_row(chunk, share, in, [&](int64_t chunk_row, const uint8_t *row) {
    call_.kernels.look_up(ih_, read<int32_t>(row, 0), bias_,
                          gates + chunk_row * call_.gates_per_row());
  });
  member.meet();
}

void Direction::quantize_input(const uint8_t *row, DataType type, int64_t to, float *widened,
                               const Member &member) const {
  const float *values = reinterpret_cast<const float *>(row);
  if (type != DataType::float32) {
    widen(row, type, columns_, widened);
    values = widened;
  }
  input_->quantize(call_.kernels, to, values, RowKind::any, member);
}

} // namespace lstm_fastkernels
