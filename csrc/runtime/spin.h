// Waiting for what comes within some microseconds, without parking.
#pragma once

#include <chrono>
#include <thread>

namespace lstm_fastkernels {

// Longer than a step, shorter than what a parked thread takes to wake. What comes within this time
// of the last one is worth spinning for.
constexpr std::chrono::microseconds kSoon{50};

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb");
#endif
}

// Whether met() has become true by then.
template <class Met>
bool spin_until(const Met &met, std::chrono::steady_clock::duration most = kSoon) {
  using Clock = std::chrono::steady_clock;
  constexpr int kSpinsAClock = 16; // some 0.5 microseconds
  for (Clock::time_point end{};;) {
    for (int i = 0; i < kSpinsAClock; ++i, pause())
      if (met())
        return true;
    const Clock::time_point now = Clock::now();
    if (end == Clock::time_point{})
      end = now + most;
    else if (now >= end)
      return false;
  }
}

// The same for longer, leaving the processor to others again and again. Threads that wait for each
// other on one processor stay there if they sleep: each is woken where the other runs. If both can
// run, the kernel moves one of them to a processor that is idle.
template <class Met> bool yield_until(const Met &met) {
  constexpr std::chrono::milliseconds kMost{4};
  for (const auto end = std::chrono::steady_clock::now() + kMost; !met();) {
    if (std::chrono::steady_clock::now() >= end)
      return false;
    std::this_thread::yield();
  }
  return true;
}

} // namespace lstm_fastkernels
