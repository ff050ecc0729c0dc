#include "runtime/pace.h"

#include <algorithm>

#include "runtime/spin.h"

namespace lstm_fastkernels {
namespace {

using Clock = std::chrono::steady_clock;

// What calls have cost lately, of which each that went well takes one off. The first ones of
// several are late, for the others have to wake, and then slow, for their caches are cold: that
// alone must not be too much.
constexpr int kLateCall = 1, kHeldUpCall = 4, kTooMuch = 8;

// A call is held up where its thread has been idle for a third of it. Halves of large weights may
// differ by some of that.
constexpr int kIdleOfACall = 3;

// How many calls a thread makes alone when it was too much: twice as many each time, and one less
// again for each call that went well.
constexpr int kLeastAlone = 4, kMostAlone = 512;

struct Pace {
  Clock::time_point last_end{};
  Clock::duration patience{}; // behind that
  Clock::time_point begin{};  // of this call
  Clock::duration idle{};     // since then
  bool in_time = false;
  int cost = 0;
  int alone = 0; // calls to come
  int next_alone = kLeastAlone;

  void add(int more) {
    cost += more;
    if (cost < kTooMuch)
      return;
    cost = 0;
    alone = next_alone;
    next_alone = std::min(2 * next_alone, kMostAlone);
  }
  void went_well() {
    cost = std::max(cost - 1, 0);
    next_alone = std::max(next_alone - 1, kLeastAlone);
  }
};
thread_local Pace pace;

// Behind something that took so long. Who calls can take more than kSoon to come back where large
// weights have pushed it out of the caches.
Clock::duration patience_behind(Clock::duration taken) {
  constexpr int kShare = 8;
  constexpr Clock::duration kMost = std::chrono::milliseconds(1);
  return std::clamp<Clock::duration>(taken / kShare, kSoon, kMost);
}

} // namespace

bool follows_soon(Clock::time_point begin) { return begin - pace.last_end < pace.patience; }

bool follows_closely() {
  pace.begin = Clock::now();
  pace.idle = {};
  if (pace.alone > 0) {
    --pace.alone;
    return false;
  }
  return follows_soon(pace.begin);
}

void note_arrival(bool in_time) {
  pace.in_time = in_time;
  if (!in_time)
    pace.add(kLateCall);
}

void note_idle(Clock::time_point since) { pace.idle += Clock::now() - since; }

Clock::duration note_end_of_job(Clock::time_point begin) {
  pace.last_end = Clock::now();
  pace.patience = patience_behind(pace.last_end - begin);
  return pace.patience;
}

void note_end_of_call() {
  note_end_of_job(pace.begin);
  if (pace.idle * kIdleOfACall > pace.last_end - pace.begin)
    pace.add(kHeldUpCall);
  else if (pace.in_time)
    pace.went_well();
  pace.idle = {};
  pace.in_time = false;
}

} // namespace lstm_fastkernels
