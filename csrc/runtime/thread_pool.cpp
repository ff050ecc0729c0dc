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

#include "runtime/affinity.h"
#include "runtime/pace.h"
#include "runtime/spin.h"

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

// A worker that has come too late for a job of this length can be in time for the next one.
constexpr std::chrono::microseconds kLongestShortJob{5000};

struct Worker {
  int thread;
  bool is_kept_away = false; // from its caller's processor
  // In a list of those that are parked: the next one, and what points to this one.
  Worker *next = nullptr, **place = nullptr;
};

class Pool {
  using Clock = std::chrono::steady_clock;

public:
  // False where another caller has the pool.
  bool run(int count, int threads, TaskReference task) {
    const std::unique_lock<std::mutex> mine(busy_, std::try_to_lock);
    if (!mine)
      return false;
    Job job(count, task);
    const Clock::time_point begin = Clock::now();
    const bool soon = follows_soon(begin);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      start_workers(threads - 1);
      keep_parked_from_here();
      job_ = &job;
      running_ = true;
      soon_ = soon;
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
    const auto all_left = [this] { return at_work_ == 0; };
    if (!spin_until(all_left)) {
      const auto idle_since = Clock::now();
      if (!yield_until(all_left)) {
        std::unique_lock<std::mutex> lock(mutex_);
        left_.wait(lock, all_left);
      }
      note_idle(idle_since);
    }
    patience_ = note_end_of_job(begin);
    running_ = false;
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

  // The kernel may wake a thread on the processor of the one that wakes it, which does not leave it
  // soon, while others are idle. Where they go on from there is the kernel's concern.
  void keep_parked_from_here() {
    if (!parked_)
      return;
    callers_ = Affinity::of_this_thread();
    const Affinity others = callers_.without(this_processor());
    for (Worker *worker = parked_; worker; worker = worker->next) {
      others.give_to(worker->thread);
      worker->is_kept_away = true;
    }
  }

  bool is_wanted() const { return places_ > 0 || leaving_; }

  // Until there is a job, or the worker is to leave; false where neither was for a while. It spins
  // before it parks where jobs follow each other soon, though it may have come too late for the
  // last one.
  bool wait(Worker &self, std::unique_lock<std::mutex> &lock) {
    const auto end = Clock::now() + std::chrono::milliseconds(worker_patience_ms);
    do {
      if (!is_wanted() && soon_) {
        const uint64_t jobs = jobs_;
        const auto next = [&] { return jobs_ != jobs; };
        lock.unlock();
        // One that has come too late for a job waits for its end, too.
        if (!spin_until([&] { return !running_ || next(); }, kLongestShortJob) || !next())
          spin_until(next, patience_.load());
        lock.lock();
      }
      if (is_wanted())
        return true;
    } while (park_until(end, self, lock));
    return is_wanted();
  }

  // False at the end.
  bool park_until(Clock::time_point end, Worker &self, std::unique_lock<std::mutex> &lock) {
    self.next = parked_;
    self.place = &parked_;
    if (parked_)
      parked_->place = &self.next;
    parked_ = &self;
    const bool woken = wake_.wait_until(lock, end) == std::cv_status::no_timeout;
    *self.place = self.next;
    if (self.next)
      self.next->place = self.place;
    if (self.is_kept_away)
      callers_.give_to(0);
    self.is_kept_away = false;
    return woken;
  }

  // Until there was nothing to do for a while.
  void serve() {
    Worker self{number_of_this_thread()};
    std::unique_lock<std::mutex> lock(mutex_);
    while (wait(self, lock) && !leaving_) {
      --places_;
      ++at_work_;
      Job *const job = job_;
      lock.unlock();
      job->work_in_callers_mode();
      lock.lock();
      if (--at_work_ == 0)
        left_.notify_one();
    }
    if (--started_ == 0)
      left_.notify_one();
  }

  std::mutex busy_;
  std::mutex mutex_;
  std::condition_variable wake_, left_;
  Worker *parked_ = nullptr;
  Affinity callers_{};          // that parked workers take over when they wake
  Job *job_ = nullptr;          // while there are places
  int places_ = 0;              // for workers who may still come to it
  std::atomic<int> at_work_{0}; // workers that have it
  std::atomic<uint64_t> jobs_{0};
  std::atomic<bool> running_{false};
  std::atomic<Clock::duration> patience_{kSoon}; // behind the last job
  int started_ = 0;
  bool leaving_ = false;
  bool soon_ = false; // the last job came soon after a call or job of its caller's
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
