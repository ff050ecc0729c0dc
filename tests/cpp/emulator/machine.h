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
  bool deserted() const { return static_cast<size_t>(returned) == threads_.size(); }
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
  Gate *warp_gate = nullptr, *block_gate = nullptr, *cluster_gate = nullptr;
  Gate *cluster_blocks = nullptr;                 // block_gate of each rank
  unsigned char *const *cluster_shared = nullptr; // shared of each rank
  bool started = false, returned = false;
  void *operand = nullptr;  // of the point where it waits
  std::vector<Copy> copies; // that are not made yet, in their order
  int groups = 0;           // of copies, committed
};

Thread &running();

// Runs others until ready() and its turn.
void suspend();
void ready(Thread &thread);

// Runs others first: there is something to wait for. Refuses where nothing has changed for long.
void poll();
void note_change();
uint64_t advance_clock(); // faster the longer nothing has changed

int64_t turn();  // switches until now
int64_t alive(); // threads that have not returned

// What a seed decides.
enum class Order { forward, backward, deep, random };
Order order();
bool toss(); // a coin
size_t random_below(size_t count);

const char *name(Point point);
std::string place(const Place &at);
// Throws Error with ErrorCode::device: the running thread did what it may not do.
[[noreturn]] void refuse(const std::string &what);

// Completes what the running thread has begun, and refuses to return where others wait for it.
void leave();

// Stores of other threads that take their time.
void deliver_due();
void deliver_all();
void deliver_packets(); // of the running thread
void drop_deliveries();

} // namespace emulator
} // namespace device
} // namespace lstm_fastkernels
