#include "runtime/thread_pool.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

namespace lstm_fastkernels {
namespace {

// A task that calls parallel_for runs the inner tasks itself.
thread_local bool inside_a_task = false;

// One parallel_for, on its caller's stack.
class Job {
public:
  Job(int count, TaskReference task) : count_(count), task_(task) {
    std::fegetenv(&floating_point_mode_);
  }

  void work() {
    inside_a_task = true;
    for (int i; (i = next_.fetch_add(1)) < count_;) {
      try {
        task_(i);
      } catch (...) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!error_)
          error_ = std::current_exception();
      }
    }
    inside_a_task = false;
  }

  void work_in_callers_mode() {
    std::fesetenv(&floating_point_mode_);
    work();
  }

  void rethrow() const {
    if (error_)
      std::rethrow_exception(error_);
  }

private:
  const int count_;
  const TaskReference task_;
  std::fenv_t floating_point_mode_;
  std::atomic<int> next_{0};
  std::mutex mutex_;
  std::exception_ptr error_;
};

class Pool {
public:
  // False where another caller has the pool.
  bool run(int count, int threads, TaskReference task) {
    const std::unique_lock<std::mutex> mine(busy_, std::try_to_lock);
    if (!mine)
      return false;
    Job job(count, task);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      start_workers(threads - 1);
      job_ = &job;
      helpers_ = threads - 1;
      ++generation_;
    }
    wake_.notify_all();
    job.work();
    {
      // No task is left to start. Who comes now finds no job; those inside finish theirs.
      std::unique_lock<std::mutex> lock(mutex_);
      job_ = nullptr;
      left_.wait(lock, [this] { return at_work_ == 0; });
    }
    job.rethrow();
    return true;
  }

private:
  // As many as the system gives: the caller works in any case.
  void start_workers(int wanted) {
    try {
      for (; started_ < wanted; ++started_)
        std::thread([this, index = started_] { serve(index); }).detach();
    } catch (const std::system_error &) {
    }
  }

  void serve(int index) {
    uint64_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return generation_ != seen; });
      seen = generation_;
      Job *const job = index < helpers_ ? job_ : nullptr;
      if (!job)
        continue;
      ++at_work_;
      lock.unlock();
      job->work_in_callers_mode();
      lock.lock();
      if (--at_work_ == 0)
        left_.notify_one();
    }
  }

  std::mutex busy_;
  std::mutex mutex_;
  std::condition_variable wake_, left_;
  Job *job_ = nullptr; // while it runs
  int at_work_ = 0;    // workers that have it
  uint64_t generation_ = 0;
  int helpers_ = 0;
  int started_ = 0;
};

// Never destroyed: its workers may outlive static destructors. A forked child has no workers and
// perhaps locked mutexes, so it forgets the parent's pool.
std::atomic<Pool *> current{nullptr};

Pool &pool() {
  static const int registered = pthread_atfork(nullptr, nullptr, [] { current.store(nullptr); });
  static_cast<void>(registered);
  Pool *existing = current.load();
  if (existing)
    return *existing;
  auto fresh = std::make_unique<Pool>();
  if (current.compare_exchange_strong(existing, fresh.get()))
    return *fresh.release();
  return *existing;
}

} // namespace

void run_parallel(int count, int threads, TaskReference task) {
  threads = std::min(threads, count);
  if (threads > 1 && !inside_a_task && pool().run(count, threads, task))
    return;
  for (int i = 0; i < count; ++i)
    task(i);
}

} // namespace lstm_fastkernels
