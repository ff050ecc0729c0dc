// device.h on the GPU: primitives of every kernel.
#pragma once

#include "cuda/kernels/device.h"

#define LFK_KERNEL(max_threads, min_blocks)                                                        \
  __global__ void __launch_bounds__(max_threads, min_blocks)
#define LFK_PARAMETERS(T) const __grid_constant__ T
#define LFK_DEVICE __device__ __forceinline__
#define LFK_UNROLLED(i, n) _Pragma("unroll") for (int i = 0; i < (n); ++i)
#define LFK_ROLLED _Pragma("unroll 1")

namespace lstm_fastkernels {
namespace device {

LFK_DEVICE Dim3 block_index() {
  return {static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.z)};
}
LFK_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
LFK_DEVICE int lane() { return static_cast<int>(threadIdx.x % 32); }
LFK_DEVICE int warp() { return static_cast<int>(threadIdx.x / 32); }

template <class T> LFK_DEVICE T *shared_memory() {
  extern __shared__ __align__(128) unsigned char block_memory[];
  return reinterpret_cast<T *>(block_memory);
}

LFK_DEVICE void sync_threads() { __syncthreads(); }

// Volatile although pure: they must not move into code that only some lanes run.
LFK_DEVICE void mma_s8s8(int32_t (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
LFK_DEVICE void mma_s8u8(int32_t (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.u8.s32 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

LFK_DEVICE int32_t largest_of_lanes(int32_t value) { return __reduce_max_sync(~0u, value); }
LFK_DEVICE bool any_lane(bool condition) { return __any_sync(~0u, condition) != 0; }

LFK_DEVICE uint32_t permute_bytes(uint32_t low, uint32_t high, uint32_t selector) {
  uint32_t result;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(result) : "r"(low), "r"(high), "r"(selector));
  return result;
}

LFK_DEVICE void atomic_or(uint32_t *shared, uint32_t bits) { atomicOr(shared, bits); }

LFK_DEVICE uint32_t shared_address(const void *shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

LFK_DEVICE void copy_async_16(void *shared, const void *global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)),
               "l"(__cvta_generic_to_global(global))
               : "memory");
}
LFK_DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int most_pending> LFK_DEVICE void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(most_pending) : "memory");
}

} // namespace device
} // namespace lstm_fastkernels
