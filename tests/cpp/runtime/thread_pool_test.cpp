// parallel_for: every task once, exceptions, many callers, nesting, fork, floating-point mode.
#include "runtime/thread_pool.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <chrono>
#include <filesystem>
#include <iterator>
#include <thread>
#include <vector>

#include "common/fail.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "check.h"
#include "runtime/affinity.h"

namespace lstm_fastkernels {
namespace {

bool runs_once(int count, int threads) {
  std::vector<std::atomic<int>> runs(static_cast<size_t>(count));
  parallel_for(count, threads, [&](int i) { ++runs[static_cast<size_t>(i)]; });
  for (const auto &n : runs)
    if (n != 1)
      return false;
  return true;
}

// Lets `count` tasks pass when all of them have come: only threads of their own can meet here.
class Meeting {
public:
  explicit Meeting(int count) : missing_(count) {}
  bool meet() {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    for (--missing_; missing_ > 0; std::this_thread::yield())
      if (std::chrono::steady_clock::now() > end)
        return false;
    return true;
  }

private:
  std::atomic<int> missing_;
};

// Calls `property` on `threads` threads at once; true where it holds on all of them.
template <class Property> bool holds_on_all(int threads, const Property &property) {
  Meeting meeting(threads);
  std::atomic<int> holding{0};
  parallel_for(threads, threads, [&](int) { holding += meeting.meet() && property(); });
  return holding == threads;
}

TEST(tasks_run_once) {
  for (int repeat = 0; repeat < 100; ++repeat)
    for (int count : {0, 1, 2, 3, 17})
      for (int threads : {-1, 0, 1, 2, 4}) {
        WITH("count ", count, " threads ", threads);
        CHECK(runs_once(count, threads));
      }
}

TEST(tasks_run_beside_each_other) {
  for (int threads : {2, 4, 3, 7})
    CHECK(holds_on_all(threads, [] { return true; }));
}

TEST(no_more_threads_than_asked_for) {
  CHECK(runs_once(8, 8)); // the pool has more by now
  std::atomic<int> at_work{0}, most{0};
  parallel_for(40, 2, [&](int) {
    const int now = ++at_work;
    for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    --at_work;
  });
  CHECK(most <= 2);
}

TEST(exceptions_reach_the_caller) {
  for (int threads : {1, 2, 4})
    for (int bad : {0, 3, 7}) {
      WITH("threads ", threads, " bad ", bad);
      const auto task = [&](int i) {
        if (i == bad)
          fail("task failed");
      };
      CHECK_THROWS(parallel_for(8, threads, task), "task failed");
      CHECK(runs_once(8, threads));
    }
  CHECK_THROWS(parallel_for(8, 4, [](int) { fail("all failed"); }), "all failed");
}

TEST(callers_run_beside_each_other) {
  std::atomic<bool> good{true};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 5; ++caller)
    callers.emplace_back([&, caller] {
      for (int repeat = 0; repeat < 100; ++repeat)
        if (!runs_once(1 + caller * 3, 3))
          good = false;
    });
  for (std::thread &caller : callers)
    caller.join();
  CHECK(good);
}

TEST(nested_calls_return) {
  std::atomic<int> runs{0};
  parallel_for(4, 3, [&](int) {
    parallel_for(4, 3, [&](int) { parallel_for(2, 2, [&](int) { ++runs; }); });
  });
  CHECK(runs == 32);
}

int64_t threads_of_this_process() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/task"), {});
}

// Within a while: a thread that has ended is listed a little longer.
bool falls_to(int64_t threads) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (threads_of_this_process() > threads)
    if (std::chrono::steady_clock::now() > end)
      return false;
  return true;
}

// Without workers, of this test or the ones before.
int64_t threads_without_workers() {
  release_workers();
  int64_t least = threads_of_this_process();
  for (int unchanged = 0; unchanged < 50; ++unchanged) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const int64_t now = threads_of_this_process();
    if (now < least)
      unchanged = 0;
    least = std::min(least, now);
  }
  return least;
}

// Where it would wait until the caller has nothing more to do.
TEST(a_parked_worker_does_not_wake_on_its_callers_processor) {
  if (Affinity::of_this_thread().count() < 2)
    return;
  constexpr int kTries = 20;
  int beside = 0;
  for (int i = 0; i < kTries; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
    int processors[2] = {-1, -1};
    Meeting meeting(2);
    parallel_for(2, 2, [&](int task) {
      processors[task] = this_processor();
      meeting.meet();
    });
    beside += processors[0] != processors[1];
  }
  CHECK(beside > kTries / 2); // the caller may be moved at any time
}

TEST(workers_end_on_request) {
  const int64_t before = threads_without_workers();
  for (int repeat = 0; repeat < 20; ++repeat) {
    CHECK(runs_once(9, 5));
    CHECK(threads_of_this_process() > before);
    release_workers();
    CHECK(falls_to(before));
  }
  CHECK(holds_on_all(3, [] {
    release_workers(); // the pool is in use
    return true;
  }));
}

TEST(workers_end_when_idle) {
  const int64_t before = threads_without_workers();
  worker_patience_ms = 20;
  const bool ran = runs_once(9, 5), fell = falls_to(before), ran_again = runs_once(9, 5);
  // Some may be about to end when the next call wants them.
  for (int repeat = 0; repeat < 20 && ran; ++repeat) {
    std::this_thread::sleep_for(std::chrono::milliseconds(19 + repeat % 3));
    CHECK(holds_on_all(3, [] { return true; }));
  }
  worker_patience_ms = 10000;
  CHECK(ran && fell && ran_again);
}

TEST(workers_end_beside_callers) {
  std::atomic<bool> done{false}, good{true};
  std::thread caller([&] {
    for (int repeat = 0; repeat < 300; ++repeat)
      if (!runs_once(7, 3))
        good = false;
    done = true;
  });
  while (!done)
    release_workers();
  caller.join();
  CHECK(good);
}

#if !defined(__SANITIZE_THREAD__) // it cannot follow a fork into threads
// True where a forked child says so within its time.
template <class Property> bool holds_in_child(const Property &property) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    _exit(property() ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST(forked_children_have_a_pool) {
  const auto works = [] { return runs_once(9, 3) && holds_on_all(3, [] { return true; }); };
  CHECK(works());
  CHECK(holds_in_child(works));
  CHECK(holds_in_child([&] { return works() && holds_in_child(works); }));
  CHECK(works());
}
#endif

TEST(workers_have_the_callers_rounding) {
  for (int mode : {FE_UPWARD, FE_TOWARDZERO, FE_TONEAREST}) {
    std::fesetround(mode);
    const bool same = holds_on_all(3, [&] { return std::fegetround() == mode; });
    std::fesetround(FE_TONEAREST);
    WITH("mode ", mode);
    CHECK(same);
  }
}

#if defined(__x86_64__)
TEST(workers_have_the_callers_flush_to_zero) {
  const unsigned before = _mm_getcsr();
  for (unsigned mode : {_MM_FLUSH_ZERO_ON, _MM_FLUSH_ZERO_OFF}) {
    _MM_SET_FLUSH_ZERO_MODE(mode);
    const bool same = holds_on_all(3, [&] {
      volatile float small = 1e-20f;
      small = small * 1e-20f;
      return (small == 0.0f) == (mode == _MM_FLUSH_ZERO_ON);
    });
    _mm_setcsr(before);
    WITH("mode ", mode);
    CHECK(same);
  }
}
#endif

} // namespace
} // namespace lstm_fastkernels
