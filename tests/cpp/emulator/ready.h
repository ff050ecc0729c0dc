#pragma once

#include <cstddef>
#include <utility>
#include <vector>

namespace lstm_fastkernels {
namespace device {
namespace emulator {

struct Thread;

// Threads that can go on; each is in it once at most.
class Ready {
public:
  void reset(size_t threads) {
    size_t size = 1;
    while (size < threads)
      size *= 2;
    ring_.assign(size, nullptr);
    first_ = count_ = 0;
  }
  size_t count() const { return count_; }
  void push(Thread *thread) { at(count_++) = thread; }
  void push_first(Thread *thread) {
    --first_;
    ++count_;
    at(0) = thread;
  }
  Thread *pop_first() {
    --count_;
    return ring_[first_++ & (ring_.size() - 1)];
  }
  Thread *pop_last() { return at(--count_); }
  Thread *pop(size_t i) {
    std::swap(at(0), at(i));
    return pop_first();
  }

private:
  Thread *&at(size_t i) { return ring_[(first_ + i) & (ring_.size() - 1)]; }
  std::vector<Thread *> ring_;
  size_t first_ = 0, count_ = 0;
};

} // namespace emulator
} // namespace device
} // namespace lstm_fastkernels
