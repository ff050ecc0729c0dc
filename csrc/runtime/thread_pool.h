// A small pool of std::threads: no OpenMP, whose runtimes clash and break after fork.
#pragma once

#include <atomic>

namespace lstm_fastkernels {

// Calls task(i) for each i in 0..count-1 on at most `threads` threads, the caller's among them, and
// returns when all are done; rethrows the first exception. Workers take over the caller's
// floating-point mode. Where the pool is busy with another caller, all tasks run on the caller's
// thread. Usable in a forked child: it starts a pool of its own. Allocates nothing once the pool
// has its threads.
template <class Task> void parallel_for(int count, int threads, const Task &task);

// A reference to a callable: std::function may allocate.
class TaskReference {
public:
  template <class Task>
  explicit TaskReference(const Task &task)
      : task_(&task), call_([](const void *of, int i) { (*static_cast<const Task *>(of))(i); }) {}
  void operator()(int i) const { call_(task_, i); }

private:
  const void *task_;
  void (*call_)(const void *, int);
};

void run_parallel(int count, int threads, TaskReference task);

// Workers that have had nothing to do for so long end.
extern std::atomic<int> worker_patience_ms;

// Ends them now, unless a call uses the pool.
void release_workers();

template <class Task> void parallel_for(int count, int threads, const Task &task) {
  run_parallel(count, threads, TaskReference(task));
}

} // namespace lstm_fastkernels
