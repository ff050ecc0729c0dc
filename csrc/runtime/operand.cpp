#include "runtime/operand.h"

namespace lstm_fastkernels {
namespace {

ActivationRows allocate_rows(Workspace &memory, const Matrix &target, int64_t rows,
                             int64_t columns) {
  ActivationRows taken;
  taken.stride = round_up(activation_row_bytes(target, columns), 64);
  taken.data = memory.allocate<uint8_t>(rows * taken.stride);
  taken.scales = memory.allocate<float>(rows);
  taken.zero_points = memory.allocate<int32_t>(rows);
  return taken;
}

// For each member. A single row has memory of its own for each: cores that write beside each other
// would wait for it.
const ActivationRows *allocate_for_members(Workspace &memory, const Matrix &target, int64_t rows,
                                           int64_t columns, int most_members) {
  ActivationRows *const all = memory.allocate<ActivationRows>(most_members);
  for (int i = 0; i < most_members; ++i) {
    all[i] = i == 0 || rows == 1 ? allocate_rows(memory, target, rows, columns) : all[0];
    all[i].scratch = memory.allocate<uint8_t>(scratch_bytes(target, rows));
  }
  return all;
}

} // namespace

TileRange share_of(const Matrix &matrix, const Member &member) {
  const int64_t window = window_of(matrix);
  return {member.first(matrix.num_tiles, window), member.last(matrix.num_tiles, window)};
}

Operand::Operand(Workspace &memory, const PackedMatrix &matrix, int64_t rows, int64_t columns,
                 int most_members)
    : matrix_(matrix), rows_(rows), columns_(columns),
      first_(allocate_for_members(memory, matrix.first(), rows, columns, most_members)) {
  if (!matrix.is_low_rank())
    return;
  second_ = allocate_for_members(memory, matrix, rows, matrix.rank, most_members);
  between_ = memory.allocate<float>(rows * matrix.v.num_tiles * kTileRows);
}

const ActivationRows &Operand::take(const Kernels &kernels, int64_t count,
                                    const Member &member) const {
  meet(member);
  const ActivationRows &first = first_[member.index()];
  if (!matrix_.is_low_rank())
    return first;
  const TileRange tiles = share_of(matrix_.v, member);
  const int64_t columns = matrix_.v.num_tiles * kTileRows;
  kernels.products(matrix_.v, tiles, nullptr, count, first,
                   {between_ + tiles.begin * kTileRows, columns});
  member.meet();
  const ActivationRows &second = second_[member.index()];
  const RowRange own = share(count, member);
  for (int64_t row = own.begin; row < own.end; ++row)
    kernels.quantize_row(between_ + row * columns, matrix_.rank, RowKind::any, matrix_,
                         second.from(row));
  meet(member);
  return second;
}

} // namespace lstm_fastkernels
