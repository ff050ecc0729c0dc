// What runs the threads of emulated blocks by turns.
#pragma once

#include <string>
#include <vector>

#include "emulator.h"
#include "fiber.h"

namespace lstm_fastkernels {
namespace device {
namespace emulator {

struct Thread;

// Where the threads of a warp or block wait for each other.
class Gate {
public:
  explicit Gate(int size) : threads_(static_cast<size_t>(size)) {}

  void reset() { returned = waiting_ = 0; }
  bool empty() const { return waiting_ == 0; }
  bool full() const { return waiting_ == threads_.size(); }
  void add(Thread &thread) { threads_[waiting_++] = &thread; }
  void clear() { waiting_ = 0; }
  Thread *const *begin() const { return threads_.data(); }
  Thread *const *end() const { return threads_.data() + waiting_; }

  Point point = Point::sync_threads; // where they wait
  int returned = 0;                  // threads that never will

private:
  std::vector<Thread *> threads_;
  size_t waiting_ = 0;
};

struct Copy {
  void *to;
  const void *from;
  int group;
};

struct Thread : Place {
  explicit Thread(void (*entry)()) : fiber(entry) {}

  Fiber fiber;
  Gate *warp_gate = nullptr, *block_gate = nullptr;
  bool started = false, returned = false;
  void *operand = nullptr;  // of the point where it waits
  std::vector<Copy> copies; // that are not made yet, in their order
  int groups = 0;           // of copies, committed
};

Thread &running();

// Runs others until ready() and its turn.
void suspend();
void ready(Thread &thread);

// What a seed decides.
enum class Order { forward, backward, deep, random };
Order order();
bool toss(); // a coin

const char *name(Point point);
std::string place(const Place &at);
// Throws Error with ErrorCode::device: the running thread did what it may not do.
[[noreturn]] void refuse(const std::string &what);

// Completes what the running thread has begun, and refuses to return where others wait for it.
void leave();

} // namespace emulator
} // namespace device
} // namespace lstm_fastkernels
