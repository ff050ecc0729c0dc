// What kernels are written with, so that they run in two places: under nvcc these are instructions
// of the GPU, elsewhere the emulator of the tests stands in for them, which runs the same source on
// the CPU.
//
//   template <int rows> LFK_KERNEL(256, 1) step_kernel(LFK_PARAMETERS(StepParameters) p) { ... }
//   launch(step_kernel<8>, {{blocks}, 256, shared_bytes}, stream, parameters);
//
// Threads. Blocks are one-dimensional and made of whole warps:
//   block_index(), grid_size(), thread_index(), num_threads(), lane(), warp()
//   shared_memory<T>()        the block's dynamic shared memory, at 128 bytes: the only kind
//   sync_threads(), sync_warp()
// Warps. All 32 lanes come to each of these together:
//   mma_s8s8(sum, a, b)       m16n8k32, row by column; sums wrap around
//   mma_s8u8(sum, a, b)       a is signed, b unsigned
//   shuffle_xor(value, mask)  the value of lane() ^ mask; any 32-bit type
//   any_lane(condition)
// A thread:
//   permute_bytes(low, high, selector)
//   copy_async_16(shared, global), commit_copies(), wait_copies<most_pending>()
#pragma once

#include <cstddef>
#include <cstdint>

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
  bool cooperative = false; // all blocks run at the same time
};

// Enqueues kernel(parameters) and returns; can be captured into a CUDA graph. Throws Error with
// ErrorCode::device where CUDA refuses it. Stream is a cudaStream_t. The emulator has run the
// kernel to its end when it returns.
template <class P>
void launch(void (*kernel)(P), const Launch &shape, void *stream, const P &parameters);

} // namespace device
} // namespace lstm_fastkernels

#if defined(__CUDACC__)
#include "launch.h"
#include "ptx.h"
#else
#include "emulator.h" // on the include path of the tests alone
#endif
