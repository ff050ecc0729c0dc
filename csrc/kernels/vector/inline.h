// What kernels ask of the compiler: to inline, and to unroll.
#pragma once

#define LFK_ALWAYS_INLINE __attribute__((always_inline))
#define LFK_INLINE inline LFK_ALWAYS_INLINE

// Loops over registers are unrolled whatever the compiler thinks of it: an array that is indexed by
// a variable would live in memory.
#define LFK_UNROLLED(i, n) _Pragma("GCC unroll 8") for (int i = 0; i < (n); ++i)
