// A call's steps in a direction, 0 forward and 1 reverse: which rows are active in each, and which
// steps are a chunk.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/schedule.h"

namespace lstm_fastkernels {
namespace cuda {

// Steps begin .. end - 1.
struct Chunk {
  int64_t begin = 0, end = 0;
};

// A part of the rows of all time steps, stored contiguously.
struct RowSpan {
  int64_t first, count;
};

class Timeline {
public:
  Timeline(const Schedule &schedule, int64_t time_steps, int64_t num_directions)
      : schedule_(schedule), time_steps_(time_steps), num_directions_(num_directions) {}

  int64_t time(int64_t step, int64_t direction) const {
    return direction ? time_steps_ - 1 - step : step;
  }
  int64_t active(int64_t t) const { return schedule_.active(t); }
  // Rows before time step t, up to t = time_steps.
  int64_t start(int64_t t) const {
    return t < time_steps_ ? schedule_.start(t)
                           : schedule_.start(time_steps_ - 1) + active(time_steps_ - 1);
  }
  int64_t all_rows() const { return start(time_steps_); }

  // Rows that are active in some step of a chunk.
  int64_t most_active(const Chunk &chunk, int64_t direction) const {
    return active(earliest(chunk, direction));
  }

  RowSpan rows(const Chunk &chunk, int64_t direction) const {
    const int64_t first = earliest(chunk, direction), end = first + chunk.end - chunk.begin;
    return {start(first), start(end) - start(first)};
  }
  // Where a step's rows begin among those of its chunk.
  int64_t row_in(const Chunk &chunk, int64_t step, int64_t direction) const {
    return start(time(step, direction)) - rows(chunk, direction).first;
  }

  // Splits all steps into chunks, each as long as the limits allow, but at least one step.
  std::vector<Chunk> chunks(int64_t most_rows, int64_t most_steps) const {
    std::vector<Chunk> all;
    for (Chunk chunk; chunk.end < time_steps_; all.push_back(chunk)) {
      chunk.begin = chunk.end++;
      while (chunk.end < time_steps_ && chunk.end - chunk.begin < most_steps &&
             widest({chunk.begin, chunk.end + 1}) <= most_rows)
        ++chunk.end;
    }
    return all;
  }

private:
  // The earliest time step of a chunk, in either direction.
  int64_t earliest(const Chunk &chunk, int64_t direction) const {
    return direction ? time_steps_ - chunk.end : chunk.begin;
  }
  int64_t widest(const Chunk &chunk) const {
    int64_t most = 0;
    for (int64_t d = 0; d < num_directions_; ++d)
      most = std::max(most, rows(chunk, d).count);
    return most;
  }

  const Schedule &schedule_;
  int64_t time_steps_, num_directions_;
};

} // namespace cuda
} // namespace lstm_fastkernels
