#if defined(__x86_64__)
#include "kernels/x86/detect.h"

#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace lstm_fastkernels {
namespace {

struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf) {
  Registers r;
  __get_cpuid_count(leaf, 0, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

// Whether the operating system saves these registers, as XCR0 says: a CPU bit alone is not enough.
bool saves(unsigned long long mask) {
  if (!(cpuid(1).ecx & bit_OSXSAVE))
    return false;
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (((static_cast<unsigned long long>(high) << 32) | low) & mask) == mask;
}

} // namespace

bool has_avx2() {
  constexpr unsigned long long kYmm = 0x6;
  return (cpuid(1).ecx & bit_FMA) && (cpuid(1).ecx & bit_F16C) && (cpuid(7).ebx & bit_AVX2) &&
         saves(kYmm);
}

bool has_avx512vnni() {
  constexpr unsigned long long kZmm = 0xe6;
  constexpr unsigned kAvx512 = bit_AVX512F | bit_AVX512VL | bit_AVX512BW;
  const Registers features = cpuid(7);
  return has_avx2() && (features.ebx & kAvx512) == kAvx512 && (features.ecx & bit_AVX512VNNI) &&
         saves(kZmm);
}

bool has_amx() {
#if defined(__linux__)
  constexpr unsigned long long kTiles = 0x60000;
  constexpr unsigned kTileData = 18;             // a part of XCR0
  constexpr long kAsk = 0x1023;                  // ARCH_REQ_XCOMP_PERM
  constexpr unsigned kAmx = 1u << 24 | 1u << 25; // AMX-TILE and AMX-INT8
  return has_avx512vnni() && (cpuid(7).edx & kAmx) == kAmx && saves(kTiles) &&
         syscall(SYS_arch_prctl, kAsk, kTileData) == 0;
#else
  return false;
#endif
}

} // namespace lstm_fastkernels
#endif
