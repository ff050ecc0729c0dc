// Whether others can be expected to help at once with a thread's next call: how closely its calls
// follow each other, and how it went the last times.
#pragma once

#include <algorithm>
#include <chrono>

#include "runtime/spin.h"

namespace lstm_fastkernels {

// How long others spin for what comes next behind something that took so long. Who calls can take
// more than kSoon to come back where large weights have pushed it out of the caches.
inline std::chrono::steady_clock::duration
patience_behind(std::chrono::steady_clock::duration taken) {
  constexpr int kShare = 8;
  constexpr std::chrono::steady_clock::duration kMost = std::chrono::milliseconds(1);
  return std::clamp<std::chrono::steady_clock::duration>(taken / kShare, kSoon, kMost);
}

// Whether the thread's last call, or what others helped with, has ended so shortly before that
// others still spin for the next.
bool follows_soon();

// The same, at the begin of a call that others may help with. Not in the calls behind one that
// others held up, by coming late or by losing their processor.
bool follows_closely();

// Of what happens in a call:
void note_arrival(bool in_time); // of all who could help
// The thread has waited for others since then, beyond what a step's end may take.
void note_idle(std::chrono::steady_clock::time_point since);

// At the end of what others have helped with, and of a call for which follows_closely() was asked.
void note_end_of_job();
void note_end_of_call();

} // namespace lstm_fastkernels
