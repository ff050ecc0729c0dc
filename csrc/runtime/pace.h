// How closely the calls of a thread that may use others follow each other.
#pragma once

namespace lstm_fastkernels {

// Whether the thread's last call has ended so shortly before that others still spin for the next.
bool follows_closely();

// At the end of a call that others may have helped with.
void note_end_of_call();

} // namespace lstm_fastkernels
