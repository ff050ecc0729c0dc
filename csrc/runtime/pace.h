// Whether others can be expected to help at once with a thread's next call: how closely its calls
// follow each other, and how it went the last times.
#pragma once

#include <chrono>

namespace lstm_fastkernels {

// Whether the thread's last call has ended so shortly before that others still spin for the next.
// Not in the calls behind one that others held up, by coming late or by losing their processor.
bool follows_closely();

// Of what happens in a call:
void note_arrival(bool in_time); // of all who could help
// The thread has waited for others since then, beyond what a step's end may take.
void note_idle(std::chrono::steady_clock::time_point since);

// At the end of a call that others may have helped with.
void note_end_of_call();

} // namespace lstm_fastkernels
