#include "machine.h"

#include <algorithm>
#include <deque>
#include <exception>
#include <new>
#include <numeric>
#include <utility>

#include "lstm_fastkernels/error.h"
#include "ready.h"
#include "support.h"

namespace lstm_fastkernels {
namespace device {
namespace emulator {
namespace {

// At once; of the emulator, not of a device: each has two mappings, and Linux gives a process
// 65530.
constexpr int64_t kMostThreads = 28 * 1024;
constexpr size_t kMostSharedBytes = 227 * 1024;

// How often each thread may poll while nothing changes: before the clock runs faster, and at all.
constexpr int64_t kPatientPolls = 16, kMostPolls = 1000;

constexpr int kMostBlockThreads = 1024, kMostRanks = 16;

struct Unwind {}; // thrown through the threads that a failure leaves behind

struct SharedMemory {
  explicit SharedMemory(size_t bytes)
      : data(static_cast<unsigned char *>(::operator new(bytes, kAlignment))) {}
  ~SharedMemory() { ::operator delete(data, kAlignment); }
  SharedMemory(const SharedMemory &) = delete;
  SharedMemory &operator=(const SharedMemory &) = delete;

  static constexpr std::align_val_t kAlignment{128};
  unsigned char *data;
};

struct Machine {
  uint64_t seed = 0;
  Random random{0};
  Fiber launcher;
  std::deque<Thread> threads; // kept for later launches
  Thread *running = nullptr;
  const Kernel *kernel = nullptr;
  Ready ready;
  int64_t alive = 0; // threads that have not returned
  std::exception_ptr failure;
  int64_t turn = 0;   // switches
  int64_t polls = 0;  // since something changed
  uint64_t clock = 0; // ns
};

Machine &machine = *new Machine; // fibers are never done: there is no moment to destroy them

Error error(const std::string &what) { return Error(ErrorCode::device, what); }

// Where threads wait for each other.
std::string waiting_places() {
  const Machine &m = machine;
  std::string where;
  int named = 0;
  for (size_t i = 0; i < m.threads.size() && named < 4; ++i) {
    const Thread &thread = m.threads[i];
    for (const Gate *gate : {thread.warp_gate, thread.block_gate, thread.cluster_gate})
      if (gate && !gate->empty() && *gate->begin() == &thread) {
        where += check::text("; ", place(thread), " and ", gate->end() - gate->begin() - 1,
                             " more wait at ", name(gate->point));
        ++named;
      }
  }
  return where;
}

[[gnu::noinline]] std::exception_ptr deadlock() {
  return std::make_exception_ptr(error("deadlock: no thread can go on" + waiting_places()));
}

[[gnu::noinline]] void deliver_to(Machine &m, void (*deliver)()) {
  try {
    deliver();
  } catch (...) {
    m.failure = std::current_exception();
  }
}

// Null where the launch is over.
Thread *next_thread() {
  Machine &m = machine;
  ++m.turn;
  if (!m.failure)
    deliver_to(m, m.alive > 0 ? deliver_due : deliver_all);
  if (m.failure)
    return nullptr;
  if (m.ready.count() == 0) {
    if (m.alive > 0)
      m.failure = deadlock();
    return nullptr;
  }
  switch (order()) {
  case Order::forward:
  case Order::backward:
    return m.ready.pop_first();
  case Order::deep:
    return m.ready.pop_last();
  case Order::random:
    break;
  }
  return m.ready.pop(m.random.bits() % m.ready.count());
}

void resume(Fiber &from, Thread *to) {
  Machine &m = machine;
  m.running = to;
  here = to;
  if (to)
    to->started = true;
  from.switch_to(to ? to->fiber : m.launcher);
}

// What each fiber does, for one launch after the other.
void run_threads() {
  Machine &m = machine;
  for (;;) {
    Thread &self = *m.running;
    try {
      m.kernel->run();
      leave();
    } catch (const Unwind &) {
    } catch (...) {
      if (!m.failure)
        m.failure = std::current_exception();
    }
    self.returned = true;
    --m.alive;
    note_change();
    resume(self.fiber, next_thread());
  }
}

void check_launch(const Launch &shape) {
  const auto want = [](bool holds, const char *what) {
    if (!holds)
      throw error(std::string("launch: ") + what);
  };
  const Dim3 &grid = shape.grid;
  want(!here, "a kernel launches none");
  want(shape.threads > 0 && shape.threads <= kMostBlockThreads, "a block has 1 to 1024 threads");
  want(shape.threads % 32 == 0, "a block has whole warps");
  want(shape.shared_bytes <= kMostSharedBytes, "a block has at most 227 KB of shared memory");
  want(grid.x > 0 && grid.y > 0 && grid.z > 0, "there is no block");
  want(grid.y <= 65535 && grid.z <= 65535, "a grid has at most 65535 blocks in y and z");
  want(shape.cluster > 0 && shape.cluster <= kMostRanks, "a cluster has 1 to 16 blocks");
  want(grid.x % shape.cluster == 0, "the grid is a multiple of the cluster");
}

// Blocks that run at the same time.
class Group {
public:
  Group(const Launch &shape, int64_t blocks)
      : shape_(shape), block_gates_(static_cast<size_t>(blocks), Gate(shape.threads)),
        warp_gates_(static_cast<size_t>(blocks * shape.threads / 32), Gate(32)),
        cluster_gates_(static_cast<size_t>(blocks / shape.cluster),
                       Gate(shape.cluster * shape.threads)) {
    if (blocks * shape.threads > kMostThreads)
      throw error(
          check::text("launch: the emulator runs at most ", kMostThreads, " threads at once"));
    for (int64_t i = 0; i < blocks; ++i)
      shared_.push_back(memory_.emplace_back(shape.shared_bytes).data);
    Machine &m = machine;
    while (m.threads.size() < static_cast<size_t>(blocks * shape.threads))
      m.threads.emplace_back(run_threads);
  }

  void run(int64_t first_block) {
    Machine &m = machine;
    prepare(first_block);
    m.failure = nullptr;
    Thread *const first = next_thread();
    resume(m.launcher, first);
    if (m.failure)
      unwind();
  }

private:
  void prepare(int64_t first_block) {
    Machine &m = machine;
    for (std::vector<Gate> *gates : {&block_gates_, &warp_gates_, &cluster_gates_})
      for (Gate &gate : *gates)
        gate.reset();
    for (const SharedMemory &memory : memory_)
      std::memset(memory.data, kUnwritten, shape_.shared_bytes);
    for (Thread &thread : m.threads)
      thread.warp_gate = thread.block_gate = thread.cluster_gate = nullptr;
    m.polls = 0;
    const size_t count = threads();
    for (size_t i = 0; i < count; ++i)
      place_thread(i, first_block);
    m.alive = static_cast<int64_t>(count);
    m.ready.reset(count);
    const bool reversed = order() == Order::backward || order() == Order::deep; // it takes the last
    for (size_t i = 0; i < count; ++i)
      m.ready.push(&m.threads[reversed ? count - 1 - i : i]);
  }

  void place_thread(size_t i, int64_t first_block) {
    const size_t block = i / static_cast<size_t>(shape_.threads);
    const int64_t index = first_block + static_cast<int64_t>(block);
    const Dim3 &grid = shape_.grid;
    Thread &thread = machine.threads[i];
    thread.block = {static_cast<int>(index % grid.x), static_cast<int>(index / grid.x % grid.y),
                    static_cast<int>(index / grid.x / grid.y)};
    thread.thread = static_cast<int>(i % static_cast<size_t>(shape_.threads));
    thread.ranks = shape_.cluster;
    thread.rank = thread.block.x % shape_.cluster;
    thread.shared = memory_[block].data;
    thread.shared_bytes = shape_.shared_bytes;
    thread.warp_gate = &warp_gates_[i / 32];
    thread.block_gate = &block_gates_[block];
    thread.cluster_gate = &cluster_gates_[block / static_cast<size_t>(shape_.cluster)];
    thread.cluster_blocks = thread.block_gate - thread.rank;
    thread.cluster_shared = &shared_[block] - thread.rank;
    thread.started = thread.returned = false;
    thread.copies.clear();
    thread.groups = 0;
  }

  [[noreturn]] void unwind() {
    Machine &m = machine;
    for (size_t i = 0; i < threads(); ++i)
      if (m.threads[i].started && !m.threads[i].returned)
        resume(m.launcher, &m.threads[i]);
    drop_deliveries();
    const std::exception_ptr failure = std::exchange(m.failure, nullptr);
    std::rethrow_exception(failure);
  }

  size_t threads() const { return block_gates_.size() * static_cast<size_t>(shape_.threads); }

  const Launch &shape_;
  std::deque<SharedMemory> memory_;
  std::vector<unsigned char *> shared_; // of each block
  std::vector<Gate> block_gates_, warp_gates_, cluster_gates_;
};

} // namespace

const Place *here = nullptr;

void set_order(uint64_t seed) {
  machine.seed = seed;
  machine.random = Random(seed);
}

Order order() { return static_cast<Order>(std::min<uint64_t>(machine.seed, 3)); }
bool toss() { return machine.random.bits() >> 63 != 0; }
size_t random_below(size_t count) { return machine.random.bits() % count; }

Thread &running() { return *machine.running; }
void ready(Thread &thread) { machine.ready.push(&thread); }

void suspend() {
  Thread &self = running();
  Thread *const next = next_thread();
  if (next != &self)
    resume(self.fiber, next);
  if (machine.failure)
    throw Unwind{};
}

void poll() {
  Machine &m = machine;
  if (++m.polls > kMostPolls * m.alive)
    refuse("polls in vain: nothing changes" + waiting_places());
  if (order() == Order::deep) // behind all others
    m.ready.push_first(m.running);
  else
    m.ready.push(m.running);
  suspend();
}

void note_change() { machine.polls = 0; }

uint64_t advance_clock() {
  constexpr uint64_t kStep = 100;
  const int64_t impatient = machine.polls / machine.alive - kPatientPolls;
  return machine.clock += kStep << std::clamp<int64_t>(impatient, 0, 30);
}

int64_t turn() { return machine.turn; }
int64_t alive() { return machine.alive; }

std::string place(const Place &at) {
  return check::text("block (", at.block.x, ", ", at.block.y, ", ", at.block.z, "), thread ",
                     at.thread);
}

void refuse(const std::string &what) { throw error(place(running()) + " " + what); }

void run(const Kernel &kernel, const Launch &shape) {
  check_launch(shape);
  const int64_t blocks = int64_t{1} * shape.grid.x * shape.grid.y * shape.grid.z;
  const int64_t at_once = shape.cooperative ? blocks : shape.cluster;
  Group group(shape, at_once);
  std::vector<int64_t> groups(static_cast<size_t>(blocks / at_once));
  std::iota(groups.begin(), groups.end(), 0);
  if (order() == Order::backward)
    std::reverse(groups.begin(), groups.end());
  Machine &m = machine;
  m.kernel = &kernel;
  for (size_t i = 0; i < groups.size(); ++i) {
    if (order() == Order::random)
      std::swap(groups[i], groups[i + m.random.bits() % (groups.size() - i)]);
    group.run(groups[i] * at_once);
  }
}

} // namespace emulator
} // namespace device
} // namespace lstm_fastkernels
