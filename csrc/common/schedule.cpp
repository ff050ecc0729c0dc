#include "common/schedule.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "common/fail.h"

namespace lstm_fastkernels {
namespace {

// More rows of y than any memory holds; 2^17 times as many do not overflow.
constexpr int64_t kMostRowsOfAllSteps = int64_t{1} << 44;

} // namespace

Schedule::Schedule(const LstmArguments &a) : batch_(a.batch_size) {
  if (a.time_steps < 1)
    fail("time_steps must be at least 1, got " + std::to_string(a.time_steps));
  if (a.batch_size < 0)
    fail("batch_size must not be negative");
  if (a.time_steps > kMostRowsOfAllSteps / std::max<int64_t>(a.batch_size, 1))
    fail("time_steps * batch_size must be at most " + std::to_string(kMostRowsOfAllSteps) +
         ", got " + std::to_string(a.time_steps) + " * " + std::to_string(a.batch_size));
  if (a.batch_sizes && a.lengths)
    fail("give lengths or batch_sizes, not both");
  if (!a.h0 != !a.c0)
    fail("give both h0 and c0 or neither");
  if (a.threads < 0)
    fail("threads must not be negative, got " + std::to_string(a.threads));
  if (a.batch_sizes) {
    active_.assign(a.batch_sizes, a.batch_sizes + a.time_steps);
    check_batch_sizes();
  } else if (a.lengths) {
    sort_by_length(a);
  } else {
    return;
  }
  start_.resize(active_.size());
  std::partial_sum(active_.begin(), active_.end() - 1, start_.begin() + 1);
}

void Schedule::check_batch_sizes() const {
  if (active_.front() != batch_)
    fail("batch_sizes must start with the batch size");
  const int64_t fewest = std::min<int64_t>(1, batch_); // an empty batch stays empty
  for (size_t t = 1; t < active_.size(); ++t)
    if (active_[t] < fewest || active_[t] > active_[t - 1])
      fail("batch_sizes must be positive and not increasing, got " + std::to_string(active_[t]) +
           " after " + std::to_string(active_[t - 1]) + " at time step " + std::to_string(t));
}

void Schedule::sort_by_length(const LstmArguments &a) {
  active_.assign(index(a.time_steps), 0);
  const std::vector<int64_t> lengths(a.lengths, a.lengths + batch_);
  for (int64_t row = 0; row < batch_; ++row) {
    const int64_t length = lengths[index(row)];
    if (length < 1 || length > a.time_steps)
      fail("lengths must be in 1.." + std::to_string(a.time_steps) + ", got " +
           std::to_string(length) + " for row " + std::to_string(row));
    ++active_[index(length - 1)];
  }
  for (size_t t = active_.size() - 1; t > 0; --t)
    active_[t - 1] += active_[t];
  order_.resize(index(batch_));
  std::iota(order_.begin(), order_.end(), int64_t{0});
  std::stable_sort(order_.begin(), order_.end(),
                   [&](int64_t p, int64_t q) { return lengths[index(p)] > lengths[index(q)]; });
}

} // namespace lstm_fastkernels
