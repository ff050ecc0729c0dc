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
  if (active(call.arguments.time_steps - 1) < kRowsOfPieces)
    gates_count_ = most_rows * call.gates_per_row();
  if (rows.size() >= kRowsOfPieces)
    for (const int64_t count : {kRowsOfPieces, rows.size()}) // those between need no more
      gates_count_ = std::max(gates_count_, most_members * gates_of_a_piece(count, 1));
}

int64_t Direction::active(int64_t t) const {
  return std::clamp<int64_t>(call_.schedule.active(t) - rows_.begin, 0, rows_.size());
}

Chunk Direction::next_chunk(int64_t begin, int64_t most_rows) const {
  int64_t end = begin + 1, rows = active(time(begin));
  if (rows < kRowsOfPieces)
    for (; end < call_.arguments.time_steps; ++end) {
      const int64_t more = active(time(end));
      if (more >= kRowsOfPieces || rows + more > most_rows)
        break;
      rows += more;
    }
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
  const ActivationRows *const x = input_ ? &quantize_inputs(chunk, rows, in, member) : nullptr;
  const auto input_gates = [&](TileRange tiles, TileRows<float> to) {
    if (x)
      return call_.kernels.products(ih_, tiles, bias_, rows, *x, to);
    for_each_row(chunk, {0, rows}, in, [&](int64_t chunk_row, const uint8_t *row) {
      call_.kernels.look_up(ih_, tiles, read<int32_t>(row, 0), bias_,
                            to.first + chunk_row * to.stride);
    });
  };
  const bool one_step = chunk.end - chunk.begin == 1, many_rows = one_step && rows >= kRowsOfPieces;
  const int64_t size = many_rows
                           ? state_.tiles_of_a_piece(rows, member.size())
                           : state_.tiles_worth_taking(active(time(chunk.begin)), member.size());
  // Of many rows a piece's alone, so that they stay in the first cache.
  const auto gates_of = [&](TileRange tiles, int64_t row) -> TileRows<float> {
    if (many_rows)
      return {gates + member.index() * gates_of_a_piece(rows, member.size()),
              (tiles.end - tiles.begin) * kTileRows};
    const int64_t stride = call_.gates_per_row();
    return {gates + row * stride + tiles.begin * kTileRows, stride};
  };
  if (!one_step) {
    state_.for_each_piece(2 * chunk.begin + 1, size, member,
                          [&](TileRange tiles) { input_gates(tiles, gates_of(tiles, 0)); });
    if (size)
      member.meet(); // others go on with these gates
  }
  const RowRange passed = state_.share_of_output(member);
  int64_t first = 0;
  for (int64_t s = chunk.begin; s < chunk.end; ++s) {
    const int64_t n = active(time(s));
    if (n == 0)
      continue; // rows that have ended, or not begun
    state_.step(step_of(s), n, size, member, [&](TileRange tiles) {
      const TileRows<float> taken = gates_of(tiles, first);
      if (one_step)
        input_gates(tiles, taken);
      return TileRows<const float>{taken.first, taken.stride};
    });
    pass_on(s, first, passed, out);
    first += n;
  }
  member.meet();
}

void Direction::pass_on(int64_t s, int64_t first, RowRange columns, const Plane &out) const {
  const int64_t step = step_of(s) + 1, count = active(time(s));
  for (int64_t row = 0; row < count; ++row)
    narrow(state_.output(step, row) + columns.begin, columns.size(), out.type,
           out.at(call_.schedule, time(s), rows_.begin + row, first + row) +
               columns.begin * bytes_of(out.type));
}

const ActivationRows &Direction::quantize_inputs(Chunk chunk, int64_t rows, const Plane &in,
                                                 const Member &member) const {
  float *const widened = widened_ + member.index() * columns_;
  for_each_row(chunk, input_->share(rows, member), in, [&](int64_t chunk_row, const uint8_t *row) {
    quantize_input(row, in.type, chunk_row, widened, member);
  });
  return input_->take(call_.kernels, rows, member);
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
