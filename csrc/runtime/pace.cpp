#include "runtime/pace.h"

#include <algorithm>
#include <chrono>

#include "runtime/spin.h"

namespace lstm_fastkernels {
namespace {

using Clock = std::chrono::steady_clock;

// How many calls a thread makes alone behind one that was held up: twice as many each time, and one
// less again for each call that was not.
constexpr int kLeastAlone = 4, kMostAlone = 512;
// The first call of several has to wake the others, which takes them too long.
constexpr int kLateArrivals = 4;

struct Pace {
  Clock::time_point last_end{};
  int late = 0;  // in a row
  int alone = 0; // calls to come
  int next_alone = kLeastAlone;

  void was_held_up() {
    late = 0;
    alone = next_alone;
    next_alone = std::min(2 * next_alone, kMostAlone);
  }
};
thread_local Pace pace;

} // namespace

bool follows_closely() {
  if (pace.alone > 0) {
    --pace.alone;
    return false;
  }
  return Clock::now() - pace.last_end < kSoon;
}

void note_arrival(bool in_time) {
  pace.late = in_time ? 0 : pace.late + 1;
  if (pace.late == kLateArrivals)
    pace.was_held_up();
  else if (in_time)
    pace.next_alone = std::max(pace.next_alone - 1, kLeastAlone);
}

void note_sleep() { pace.was_held_up(); }

void note_end_of_call() { pace.last_end = Clock::now(); }

} // namespace lstm_fastkernels
