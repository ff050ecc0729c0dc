// Which rows are active at which time step. Rows are sorted by decreasing length, so that the
// active ones are always the first active(t).
#pragma once

#include <cstdint>
#include <vector>

#include "lstm_fastkernels/lstm.h"

namespace lstm_fastkernels {

class Schedule {
public:
  // Throws Error for numbers of a call that are out of range. Reads lengths and batch_sizes once,
  // and nobody reads them later: another thread may write them.
  explicit Schedule(const LstmArguments &a);

  int64_t active(int64_t t) const { return active_.empty() ? batch_ : active_[index(t)]; }
  // Active rows of all steps before t: where step t begins when rows are stored contiguously.
  int64_t start(int64_t t) const { return start_.empty() ? t * batch_ : start_[index(t)]; }
  int64_t caller_row(int64_t row) const { return order_.empty() ? row : order_[index(row)]; }

  // Of all time steps; empty where every row is active at each.
  const std::vector<int64_t> &starts() const { return start_; }
  // caller_row of all rows; empty where they are taken as they come.
  const std::vector<int64_t> &order() const { return order_; }

private:
  static size_t index(int64_t i) { return static_cast<size_t>(i); }
  void check_batch_sizes() const;
  void sort_by_length(const LstmArguments &a);

  int64_t batch_;
  std::vector<int64_t> active_, start_, order_;
};

} // namespace lstm_fastkernels
