#include "runtime/thread_pool.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

#include "runtime/pace.h"
#include "runtime/spin.h"

namespace lstm_fastkernels {
namespace {

// A task that calls parallel_for runs the inner tasks itself.
thread_local bool inside_a_task = false;

// One parallel_for, on its caller's stack.
class Job {
public:
  // `soon`: after the last one.
  Job(int count, TaskReference task, bool soon) : soon(soon), count_(count), task_(task) {
    std::fegetenv(&floating_point_mode_);
  }

  const bool soon;

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
  using Clock = std::chrono::steady_clock;

public:
  // False where another caller has the pool.
  bool run(int count, int threads, TaskReference task) {
    const std::unique_lock<std::mutex> mine(busy_, std::try_to_lock);
    if (!mine)
      return false;
    Job job(count, task, Clock::now() - ended_ < kSoon);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      start_workers(threads - 1);
      job_ = &job;
      places_ = threads - 1;
    }
    ++jobs_; // behind the lock, which those who spin would run into
    wake_.notify_all();
    job.work();
    {
      // No task is left to start. Workers waking now see no place; those inside finish theirs.
      const std::lock_guard<std::mutex> lock(mutex_);
      places_ = 0;
    }
    if (!spin_until([this] { return at_work_ == 0; })) {
      note_sleep();
      std::unique_lock<std::mutex> lock(mutex_);
      left_.wait(lock, [this] { return at_work_ == 0; });
    }
    ended_ = Clock::now();
    job.rethrow();
    return true;
  }

  // Ends the workers, unless they are at work.
  void release() {
    const std::unique_lock<std::mutex> mine(busy_, std::try_to_lock);
    if (!mine)
      return;
    std::unique_lock<std::mutex> lock(mutex_);
    leaving_ = true;
    wake_.notify_all();
    left_.wait(lock, [this] { return started_ == 0; });
    leaving_ = false;
  }

private:
  // As many as the system gives: the caller works in any case.
  void start_workers(int wanted) {
    try {
      for (; started_ < wanted; ++started_)
        std::thread([this] { serve(); }).detach();
    } catch (const std::system_error &) {
    }
  }

  // Until there was nothing to do for a while. Behind a job that has come soon after the last one a
  // worker spins for the next, before it parks.
  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (wake_.wait_for(lock, std::chrono::milliseconds(worker_patience_ms), [this] {
      return places_ > 0 || leaving_;
    }) && !leaving_) {
      --places_;
      ++at_work_;
      Job *const job = job_;
      lock.unlock();
      job->work_in_callers_mode();
      const bool soon = job->soon;
      const uint64_t jobs = jobs_; // there is no other job before this one's workers have left it
      lock.lock();
      if (--at_work_ == 0)
        left_.notify_one();
      if (soon) {
        lock.unlock();
        spin_until([&] { return jobs_ != jobs; });
        lock.lock();
      }
    }
    if (--started_ == 0)
      left_.notify_one();
  }

  std::mutex busy_;
  Clock::time_point ended_{}; // when the last job has, for who has busy_
  std::mutex mutex_;
  std::condition_variable wake_, left_;
  Job *job_ = nullptr;          // while there are places
  int places_ = 0;              // for workers who may still come to it
  std::atomic<int> at_work_{0}; // workers that have it
  std::atomic<uint64_t> jobs_{0};
  int started_ = 0;
  bool leaving_ = false;
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

std::atomic<int> worker_patience_ms{10000};

void release_workers() {
  if (Pool *const existing = inside_a_task ? nullptr : current.load())
    existing->release();
}

void run_parallel(int count, int threads, TaskReference task) {
  threads = std::min(threads, count);
  if (threads > 1 && !inside_a_task && pool().run(count, threads, task))
    return;
  for (int i = 0; i < count; ++i)
    task(i);
}

} // namespace lstm_fastkernels
