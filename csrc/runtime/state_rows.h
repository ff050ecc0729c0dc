// Which rows of the caller's states a call's rows have.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>

#include "common/workspace.h"
#include "lstm_fastkernels/lstm.h"

namespace lstm_fastkernels {

// Rows that states may have.
constexpr int64_t kMaxStateBatch = std::numeric_limits<int32_t>::max();

class StateRows {
public:
  // Throws Error for state_rows that are out of range or repeated. Reads them once, and nobody
  // reads them later: another thread may write them.
  explicit StateRows(const LstmArguments &a);

  // Where a row of the caller's has its state in [cells, rows of states].
  int64_t at(int64_t cell, int64_t row) const {
    return cell * state_batch_ + (rows_ ? rows_[row] : row);
  }

private:
  std::optional<Workspace> memory_;
  int64_t *rows_ = nullptr; // null: in their order
  int64_t state_batch_;
};

// The first of `count` numbers in 0..limit-1 that stands before itself, too; -1 if there is none.
int64_t first_repeated(const int64_t *numbers, int64_t count, int64_t limit);

} // namespace lstm_fastkernels
