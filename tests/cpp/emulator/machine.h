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
struct Gate {
  int size = 0, returned = 0; // threads
  Point point = Point::sync_threads;
  std::vector<Thread *> waiting; // at `point`
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
