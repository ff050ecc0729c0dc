// The primitives that kernels are written with. Under nvcc they are GPU instructions; in the tests
// an emulator runs the same source on the CPU.
//
//   template <int rows> LFK_KERNEL(256, 1) step_kernel(LFK_PARAMETERS(StepParameters) p) { ... }
//   launch(step_kernel<8>, {{blocks}, 256, shared_bytes}, stream, parameters);
//
// LFK_DEVICE marks functions that kernels call, LFK_UNROLLED (i, n) is an unrolled loop over i < n,
// LFK_ROLLED keeps the loop after it from being unrolled, which would cost registers.
//
// Threads. Blocks are one-dimensional, of whole warps:
//   block_index(), thread_index(), lane(), warp()
//   shared_memory<T>()        the block's dynamic shared memory, 128-byte aligned; the only kind
//   sync_threads()
// Warps. All 32 lanes call each of these together:
//   mma_s8s8(sum, a, b)       m16n8k32, row by column; sums wrap around
//   mma_s8u8(sum, a, b)       a is signed, b unsigned
//   largest_of_lanes(value)   int32_t
//   any_lane(condition)
// A thread:
//   permute_bytes(low, high, selector)
//   atomic_or(shared, bits)
//   copy_async_16(shared, global), commit_copies(), wait_copies<most_pending>()
//
// Across blocks. Clusters need compute capability 9.0; on older devices these trap:
//   cluster_sync()                     stores before it are visible after it
//   map_shared(own, rank)              RemotePointer<T> to the same place in the shared memory of
//                                      the cluster's block of that number, which must not have
//                                      returned
//   Mbarrier, in shared memory: a phase ends after `arrivals` arrivals and as many bytes as these
//   expect; phases have parity 0, 1, 0, ...
//     init(arrivals), then fence_mbarrier_init() and cluster_sync()
//     arrive_expect_bytes(n)
//     try_wait(parity)                 whether the phase of that parity has ended; may block for a
//                                      while
//   store_async(to, value, barrier)    stores 16 bytes into a block of the cluster, its own
//                                      included, and counts them on that block's barrier; undefined
//                                      in a cluster of one block
// Across the grid, through global memory:
//   store_packet(to, value), load_packet(from)   16 bytes at once; packets are not ordered
//   pause()                            in loops that wait for these and for try_wait
//   global_timer_ns()
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/kernels/device_types.h"

namespace lstm_fastkernels {
namespace device {

struct Dim3 {
  int x = 1, y = 1, z = 1;
};

struct Launch {
  Dim3 grid;
  int threads = 0; // of a block
  size_t shared_bytes = 0;
  int cluster = 1;          // blocks of a cluster, neighbours in x
  bool cooperative = false; // all blocks are resident at once
};

// Sets the calling thread's current device; returns the previous one.
int exchange_device(int device);

Limits limits_of(int device);

// A word of host memory, zero at first, that the host and every kernel may read and write for the
// life of the process: `host` and `device` are its two addresses.
struct SharedWord {
  volatile uint32_t *host = nullptr;
  uint32_t *device = nullptr;
};
SharedWord allocate_shared_word(int device);

// How many clusters of a launch's shape can be resident on the device at once; for clusters of one
// block, how many blocks.
template <class P> int most_at_once(void (*kernel)(P), const Launch &shape, int device);

// Enqueues kernel(parameters) on a cudaStream_t; can be captured into a CUDA graph. Throws Error
// with ErrorCode::device if CUDA refuses the launch. The emulator runs the kernel before it
// returns.
template <class P>
void launch(void (*kernel)(P), const Launch &shape, void *stream, const P &parameters);

} // namespace device
} // namespace lstm_fastkernels

#if defined(__CUDACC__)
#include "cuda/kernels/launch.h"
#include "cuda/kernels/ptx.h"
#include "cuda/kernels/ptx_cluster.h"
#else
#include "emulator.h" // on the include path of the tests alone
#endif
