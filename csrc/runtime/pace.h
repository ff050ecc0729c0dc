// Whether others can be expected to help at once with a thread's next call: how closely its calls
// follow each other, and how it went the last times.
#pragma once

#include <chrono>

namespace lstm_fastkernels {

// Whether the thread's last call, or what others helped with, has ended so shortly before that
// others still spin for the next.
bool follows_soon(std::chrono::steady_clock::time_point begin);

// The same, at the begin of a call that others may help with. Not in the calls behind one that
// others held up, by coming late or by losing their processor.
bool follows_closely();

// Of what happens in a call:
void note_arrival(bool in_time); // of all who could help
// The thread has waited for others since then, beyond what a step's end may take.
void note_idle(std::chrono::steady_clock::time_point since);

// At the end of what others have helped with: for how long they spin for what comes next.
std::chrono::steady_clock::duration note_end_of_job(std::chrono::steady_clock::time_point begin);
// At the end of a call for which follows_closely() was asked.
void note_end_of_call();

} // namespace lstm_fastkernels
