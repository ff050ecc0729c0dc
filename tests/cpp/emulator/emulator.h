// device.h on the CPU. Each thread of a block is a fiber, which runs until it waits for others.
// launch throws Error with ErrorCode::device, naming block and thread, where
//   - some threads of a warp or block come to a collective that others miss, having returned or
//     waiting elsewhere, and where no thread can go on for any other reason,
//   - all threads poll and nothing changes any more,
//   - a copy or a store to another block is misaligned or leaves shared memory, or comes too late,
//   - an Mbarrier is not ready for what is done with it,
//   - no device would take the launch;
// and rethrows what a kernel throws. AddressSanitizer sees what else leaves shared memory.
#pragma once

#include <cstring>

#include "cuda/kernels/device.h"

#define LFK_KERNEL(max_threads, min_blocks) void
#define LFK_PARAMETERS(T) const T
#define LFK_DEVICE inline
#define LFK_UNROLLED(i, n) for (int i = 0; i < (n); ++i)
#define LFK_ROLLED

namespace lstm_fastkernels {
namespace device {
namespace emulator {

// The order in which what is independent happens, for all launches to come: kernels that are right
// give the same results in each. 0 takes threads and blocks in their order, 1 in reverse, 2 runs
// each thread as far as it can get; others are random. Copies and stores to other blocks are made
// late with 0 and 1, soon with 2, and either with others.
void set_order(uint64_t seed);

// Of all stores to other blocks and packets to come, the nth never arrives; with 0, all do.
void lose_store(int64_t nth);

// Shared memory starts each block with this in each byte.
constexpr unsigned char kUnwritten = 0xcd;

// Where the running thread is.
struct Place {
  Dim3 block;
  int thread = 0;
  int rank = 0, ranks = 1; // in its cluster
  unsigned char *shared = nullptr;
  size_t shared_bytes = 0;
};
extern const Place *here;

enum class Point { sync_threads, cluster_sync, mma_s8s8, mma_s8u8, largest_of_lanes, any_lane };

struct Product {
  int32_t *sum;
  const uint32_t *a, *b;
};
struct Largest {
  int32_t value;
};
struct Vote {
  bool value;
};

// Returns when all threads that the point takes have come to it; `operand` is of the point's type
// and holds the result then.
void meet(Point point, void *operand = nullptr);

// sum += a b for the fragments of all lanes.
void multiply(const Product *const (&lanes)[32], bool unsigned_b);

class Kernel {
public:
  virtual void run() const = 0;

protected:
  ~Kernel() = default;
};

void run(const Kernel &kernel, const Launch &shape);

void wait_copies(int most_pending);

} // namespace emulator

inline Dim3 block_index() { return emulator::here->block; }
inline int thread_index() { return emulator::here->thread; }
inline int lane() { return emulator::here->thread % 32; }
inline int warp() { return emulator::here->thread / 32; }

template <class T> T *shared_memory() { return reinterpret_cast<T *>(emulator::here->shared); }

inline void sync_threads() { emulator::meet(emulator::Point::sync_threads); }

inline void mma_s8s8(int32_t (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulator::Product product{sum, a, b};
  emulator::meet(emulator::Point::mma_s8s8, &product);
}
inline void mma_s8u8(int32_t (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulator::Product product{sum, a, b};
  emulator::meet(emulator::Point::mma_s8u8, &product);
}

inline int32_t largest_of_lanes(int32_t value) {
  emulator::Largest largest{value};
  emulator::meet(emulator::Point::largest_of_lanes, &largest);
  return largest.value;
}
inline bool any_lane(bool condition) {
  emulator::Vote vote{condition};
  emulator::meet(emulator::Point::any_lane, &vote);
  return vote.value;
}

uint32_t permute_bytes(uint32_t low, uint32_t high, uint32_t selector);

inline void atomic_or(uint32_t *shared, uint32_t bits) { *shared |= bits; }

void copy_async_16(void *shared, const void *global);
void commit_copies();
template <int most_pending> void wait_copies() { emulator::wait_copies(most_pending); }

inline int exchange_device(int device) { return device; }

Limits limits_of(int device);
SharedWord allocate_shared_word(int device);
template <class P> int most_at_once(void (*)(P), const Launch &shape, int device) {
  return limits_of(device).multiprocessors / shape.cluster;
}

template <class P>
void launch(void (*kernel)(P), const Launch &shape, void * /*stream*/, const P &parameters) {
  class Call final : public emulator::Kernel {
  public:
    Call(void (*kernel)(P), const P &parameters) : kernel_(kernel), parameters_(parameters) {}
    void run() const override { kernel_(parameters_); }

  private:
    void (*kernel_)(P);
    const P &parameters_;
  };
  emulator::run(Call(kernel, parameters), shape);
}

} // namespace device
} // namespace lstm_fastkernels

#include "cluster.h"
