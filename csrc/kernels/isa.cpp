#include "lstm_fastkernels/isa.h"

#include <atomic>
#include <cstdlib>
#include <string>

#include "common/fail.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace lstm_fastkernels {
namespace {

constexpr Isa kAll[] = {Isa::scalar, Isa::avx2, Isa::avx512vnni};

#if defined(__x86_64__)
// XCR0 says which registers the operating system saves: a CPU bit alone is not enough.
unsigned long long saved_registers() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  __cpuid(1, eax, ebx, ecx, edx);
  if (!(ecx & bit_OSXSAVE))
    return 0;
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<unsigned long long>(high) << 32) | low;
}

Isa detect() {
  constexpr unsigned long long kYmm = 0x6, kZmm = 0xe6;
  const unsigned long long saved = saved_registers();
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  __cpuid(1, eax, ebx, ecx, edx);
  const bool fma = (ecx & bit_FMA) != 0;
  if (!fma || (saved & kYmm) != kYmm)
    return Isa::scalar;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || !(ebx & bit_AVX2))
    return Isa::scalar;
  const unsigned avx512 = bit_AVX512F | bit_AVX512VL | bit_AVX512BW;
  const bool vnni = (ebx & avx512) == avx512 && (ecx & bit_AVX512VNNI);
  return vnni && (saved & kZmm) == kZmm ? Isa::avx512vnni : Isa::avx2;
}
#else
Isa detect() { return Isa::scalar; }
#endif

const Isa *find(std::string_view name) {
  for (const Isa &isa : kAll)
    if (name == isa_name(isa))
      return &isa;
  return nullptr;
}

Isa highest_allowed() {
  const Isa detected = detect();
  const char *cap = std::getenv("LSTM_FASTKERNELS_ISA");
  if (!cap || !*cap)
    return detected;
  const Isa *isa = find(cap);
  if (!isa)
    fail(std::string("LSTM_FASTKERNELS_ISA must be scalar, avx2 or "
                     "avx512vnni, got '") +
         cap + "'");
  return *isa < detected ? *isa : detected;
}

Isa highest() {
  static const Isa isa = highest_allowed();
  return isa;
}

std::atomic<int> chosen{-1};

} // namespace

std::string_view isa_name(Isa isa) {
  switch (isa) {
  case Isa::scalar:
    return "scalar";
  case Isa::avx2:
    return "avx2";
  case Isa::avx512vnni:
    return "avx512vnni";
  }
  return "unknown";
}

std::vector<Isa> supported_isas() {
  std::vector<Isa> isas;
  for (Isa isa : kAll)
    if (isa <= highest())
      isas.push_back(isa);
  return isas;
}

Isa active_isa() {
  const int isa = chosen.load(std::memory_order_relaxed);
  return isa < 0 ? highest() : static_cast<Isa>(isa);
}

void set_isa(std::string_view name) {
  const Isa *isa = find(name);
  if (!isa || *isa > highest()) {
    std::string names;
    for (Isa supported : supported_isas())
      (names += names.empty() ? "" : ", ") += isa_name(supported);
    fail("instruction set must be one of: " + names + "; got '" + std::string(name) + "'");
  }
  chosen.store(static_cast<int>(*isa), std::memory_order_relaxed);
}

} // namespace lstm_fastkernels
