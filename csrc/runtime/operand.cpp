#include "runtime/operand.h"

namespace lstm_fastkernels {
namespace {

ActivationRows allocate_rows(Workspace &memory, const Matrix &target, int64_t rows,
                             int64_t columns) {
  ActivationRows taken;
  taken.stride = round_up(activation_row_bytes(target, columns), 32);
  taken.data = memory.allocate<uint8_t>(rows * taken.stride);
  taken.scales = memory.allocate<float>(rows);
  taken.zero_points = memory.allocate<int32_t>(rows);
  return taken;
}

} // namespace

Operand::Operand(Workspace &memory, const PackedMatrix &matrix, int64_t rows, int64_t columns)
    : matrix_(matrix), columns_(columns),
      first_(allocate_rows(memory, matrix.first(), rows, columns)), between_(nullptr) {
  if (!matrix.is_low_rank())
    return;
  between_ = memory.allocate<float>(rows * matrix.v.num_tiles * kTileRows);
  second_ = allocate_rows(memory, matrix, rows, matrix.rank);
}

void Operand::quantize(const Kernels &kernels, int64_t row, const float *values,
                       RowKind kind) const {
  kernels.quantize_row(values, columns_, kind, matrix_.first(), first_.from(row));
}

const ActivationRows &Operand::take(const Kernels &kernels, int64_t count) const {
  if (!matrix_.is_low_rank())
    return first_;
  kernels.products(matrix_.v, all_tiles(matrix_.v), nullptr, count, first_, between_);
  for (int64_t row = 0; row < count; ++row)
    kernels.quantize_row(between_ + row * matrix_.v.num_tiles * kTileRows, matrix_.rank,
                         RowKind::any, matrix_, second_.from(row));
  return second_;
}

} // namespace lstm_fastkernels
