// LFK_TARGET_BEGIN("avx2,fma") ... LFK_TARGET_END compiles the functions between them for an
// instruction set. Open it after every #include: a standard header's inline function compiled for
// AVX could replace the same function elsewhere at link time and crash an older machine.
#pragma once

#define LFK_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define LFK_TARGET_BEGIN(isa)                                                                      \
  LFK_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define LFK_TARGET_END LFK_PRAGMA(clang attribute pop)
#elif defined(__GNUC__)
#define LFK_TARGET_BEGIN(isa) LFK_PRAGMA(GCC push_options) LFK_PRAGMA(GCC target(isa))
#define LFK_TARGET_END LFK_PRAGMA(GCC pop_options)
#else
#error "instruction set regions need GCC or clang"
#endif
