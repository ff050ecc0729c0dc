// A small pool of std::threads: no OpenMP, whose runtimes clash and break after fork.
#pragma once

#include <functional>

namespace lstm_fastkernels {

// Calls task(i) for each i in 0..count-1 on at most `threads` threads, the caller's among them, and
// returns when all are done; rethrows the first exception. Workers take over the caller's
// floating-point mode. Where the pool is busy with another caller, all tasks run on the caller's
// thread. Usable in a forked child: it starts a pool of its own.
void parallel_for(int count, int threads, const std::function<void(int)> &task);

} // namespace lstm_fastkernels
