#include "runtime/state_rows.h"

#include <algorithm>
#include <string>

#include "common/fail.h"

namespace lstm_fastkernels {

StateRows::StateRows(const LstmArguments &a) : state_batch_(a.batch_size) {
  if (!a.state_rows)
    return;
  state_batch_ = a.state_batch;
  if (state_batch_ < 0 || state_batch_ > kMaxStateBatch)
    fail("state_batch must be in 0.." + std::to_string(kMaxStateBatch) + ", got " +
         std::to_string(state_batch_));
  memory_.emplace();
  rows_ = memory_->allocate<int64_t>(a.batch_size);
  for (int64_t i = 0; i < a.batch_size; ++i) {
    rows_[i] = a.state_rows[i];
    if (rows_[i] < 0 || rows_[i] >= state_batch_)
      fail("state_rows must be in 0.." + std::to_string(state_batch_ - 1) + ", got " +
           std::to_string(rows_[i]) + " for row " + std::to_string(i));
  }
  const int64_t repeated = first_repeated(rows_, a.batch_size, state_batch_);
  if (repeated >= 0)
    fail("state_rows must differ, got " + std::to_string(rows_[repeated]) + " for row " +
         std::to_string(repeated) + " again");
}

int64_t first_repeated(const int64_t *numbers, int64_t count, int64_t limit) {
  constexpr int64_t kBits = 64;
  const int64_t words = limit / kBits + 1;
  Workspace memory;
  uint64_t *const met = memory.allocate<uint64_t>(words);
  std::fill_n(met, words, uint64_t{0});
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t bit = uint64_t{1} << numbers[i] % kBits;
    uint64_t &word = met[numbers[i] / kBits];
    if (word & bit)
      return i;
    word |= bit;
  }
  return -1;
}

} // namespace lstm_fastkernels
