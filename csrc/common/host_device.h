// LFK_HOST_DEVICE marks functions that CUDA kernels share with the CPU.
#pragma once

#if defined(__CUDACC__)
#define LFK_HOST_DEVICE __host__ __device__
#else
#define LFK_HOST_DEVICE
#endif
