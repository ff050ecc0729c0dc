// The rows that a matrix is multiplied with, quantized for it; for a low-rank one by way of V.
#pragma once

#include <cstdint>

#include "common/workspace.h"
#include "kernels/implementations.h"
#include "runtime/team.h"
#include "weights/packed.h"

namespace lstm_fastkernels {

struct RowRange {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

// Tiles that go together.
inline int64_t window_of(const Matrix &matrix) { return matrix.is_sparse() ? kWindowTiles : 1; }

// The tiles of a matrix that are a member's.
TileRange share_of(const Matrix &matrix, const Member &member);

// Members of a team share it: each calls all that has a member at the same time as the others.
class Operand {
public:
  // Takes memory for `rows` rows of `columns` values, for a team of at most so many. Several rows
  // are there once, a single one for each member. The matrix must live as long.
  Operand(Workspace &memory, const PackedMatrix &matrix, int64_t rows, int64_t columns,
          int most_members);

  // Those of `count` rows that a member quantizes: its share of several; a single one each for
  // itself, which is quicker than to meet.
  RowRange share(int64_t count, const Member &member) const {
    return rows_ == 1 ? RowRange{0, count} : RowRange{member.first(count), member.last(count)};
  }
  // Row `row` becomes these values.
  void quantize(const Kernels &kernels, int64_t row, const float *values, RowKind kind,
                const Member &member) const {
    kernels.quantize_row(values, columns_, kind, matrix_.first(), first_[member.index()].from(row));
  }
  // When all members have quantized theirs: the first `count` rows, as the matrix's own products
  // and steps take them.
  const ActivationRows &take(const Kernels &kernels, int64_t count, const Member &member) const;

private:
  // Before members read rows that others have quantized.
  void meet(const Member &member) const {
    if (rows_ > 1)
      member.meet();
  }

  const PackedMatrix &matrix_;
  int64_t rows_, columns_;
  // Of each member, where it finds its own row or those of all, with scratch memory of its own.
  const ActivationRows *first_; // for V, or the matrix itself
  const ActivationRows *second_ = nullptr;
  float *between_ = nullptr; // V's products
};

} // namespace lstm_fastkernels
