#if defined(__x86_64__)
#include "kernels/x86/detect.h"

#include <cpuid.h>

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

} // namespace lstm_fastkernels
#endif
