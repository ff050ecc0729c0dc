// What one core of this machine can do: read bandwidth by working set, and multiply-accumulates a
// second by instruction sequence. benchmarks/workloads.py turns the figures into the floor of a
// workload.
//
//   g++ -O3 -std=c++17 limits.cpp -o limits && taskset -c 0 ./limits
//
// Needs AVX2; AVX-512 VNNI and AMX are measured where the CPU and the system have them.
// Prints JSON.

#include <algorithm>
#include <chrono>
#include <cpuid.h>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <immintrin.h>
#include <memory>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

#define AVX2 "avx2,fma"
#define VNNI "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni"
#define AMX "amx-tile,amx-int8"

// Makes the compiler forget what it knows about a register and about memory, at no cost. Without
// it, a product of operands that never change would be computed once, ahead of the loop.
#define OPAQUE(vector) asm volatile("" : "+v"(vector) : : "memory")

// Independent sums: two multiply-adds a cycle with a latency of 4 cycles need 8 at least.
constexpr int kSums = 10;
constexpr int kRepeats = 7;
constexpr double kMinSeconds = 0.01;

// Operands in memory, with external linkage so that OPAQUE's memory clobber covers them.
alignas(64) int8_t activations[64];
alignas(64) int8_t weights[kSums][64];

// Adds one product to a sum. `expression` has the sum, w and x in registers, and `narrow`, weights
// in memory.
#define ACCUMULATE(into, row, expression)                                                          \
  {                                                                                                \
    [[maybe_unused]] const int8_t *narrow = weights[row];                                          \
    auto &sum = into;                                                                              \
    OPAQUE(w);                                                                                     \
    sum = expression;                                                                              \
    OPAQUE(sum);                                                                                   \
  }

// Defines name(rounds), which accumulates kSums products a round. The sums are ten variables
// because GCC would keep an array in memory. A factor that depends on x alone is computed once, as
// in a matrix-vector product, where one broadcast activation meets many weights.
#define KERNEL(name, isa, Vector, expression)                                                      \
  __attribute__((target(isa))) void name(long rounds) {                                            \
    Vector w, x, s0{}, s1{}, s2{}, s3{}, s4{}, s5{}, s6{}, s7{}, s8{}, s9{};                       \
    std::memcpy(&w, weights, sizeof w);                                                            \
    std::memcpy(&x, activations, sizeof x);                                                        \
    for (; rounds > 0; --rounds) {                                                                 \
      ACCUMULATE(s0, 0, expression)                                                                \
      ACCUMULATE(s1, 1, expression)                                                                \
      ACCUMULATE(s2, 2, expression)                                                                \
      ACCUMULATE(s3, 3, expression)                                                                \
      ACCUMULATE(s4, 4, expression)                                                                \
      ACCUMULATE(s5, 5, expression)                                                                \
      ACCUMULATE(s6, 6, expression)                                                                \
      ACCUMULATE(s7, 7, expression)                                                                \
      ACCUMULATE(s8, 8, expression)                                                                \
      ACCUMULATE(s9, 9, expression)                                                                \
    }                                                                                              \
  }

#define WIDEN_256 _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)narrow))
#define WIDEN_512 _mm512_cvtepi8_epi16(_mm256_load_si256((const __m256i *)narrow))
#define QUADS(pairs) _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))

KERNEL(float32_fma, AVX2, __m256, _mm256_fmadd_ps(w, x, sum))
KERNEL(int8_maddubs, AVX2, __m256i, _mm256_add_epi32(sum, QUADS(_mm256_maddubs_epi16(x, w))))
KERNEL(int8_sign, AVX2, __m256i,
       _mm256_add_epi32(sum,
                        QUADS(_mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(w, x)))))
// w and x change places in the second product, so that it is not the first one again.
KERNEL(int8_maddubs_pair, AVX2, __m256i,
       _mm256_add_epi32(sum, QUADS(_mm256_add_epi16(_mm256_maddubs_epi16(x, w),
                                                    _mm256_maddubs_epi16(w, x)))))
KERNEL(int16_madd, AVX2, __m256i, _mm256_add_epi32(sum, _mm256_madd_epi16(w, x)))
KERNEL(int16_widen_madd, AVX2, __m256i, _mm256_add_epi32(sum, _mm256_madd_epi16(WIDEN_256, x)))
KERNEL(int8_dpbusd_256, VNNI, __m256i, _mm256_dpbusd_epi32(sum, x, w))
KERNEL(int8_dpbusd_512, VNNI, __m512i, _mm512_dpbusd_epi32(sum, x, w))
KERNEL(int16_dpwssd_256, VNNI, __m256i, _mm256_dpwssd_epi32(sum, x, w))
KERNEL(int16_dpwssd_512, VNNI, __m512i, _mm512_dpwssd_epi32(sum, x, w))
KERNEL(int16_widen_dpwssd_256, VNNI, __m256i, _mm256_dpwssd_epi32(sum, x, WIDEN_256))
KERNEL(int16_widen_dpwssd_512, VNNI, __m512i, _mm512_dpwssd_epi32(sum, x, WIDEN_512))

// kSums products of 16 rows, 16 rows and 64 columns a round, by five sums: more than the latency
// asks for.
__attribute__((target(AMX))) void int8_tdpbusd(long rounds) {
  struct {
    uint8_t palette = 1, unused[15] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } const shapes;
  asm volatile("ldtilecfg %0" : : "m"(shapes)); // GCC's intrinsic does not say that it reads them
  for (long five = 0; five < rounds * kSums / 5; ++five) {
    _tile_dpbusd(0, 6, 7);
    _tile_dpbusd(1, 6, 7);
    _tile_dpbusd(2, 6, 7);
    _tile_dpbusd(3, 6, 7);
    _tile_dpbusd(4, 6, 7);
  }
  _tile_release();
}

bool always() { return true; }

bool has_vnni() {
  return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bw");
}

// Which the system gives to a process that asks for it.
bool has_amx() {
  constexpr unsigned kTileAndInt8 = 1u << 24 | 1u << 25;
  constexpr long kRequest = 0x1023, kTileData = 18; // ARCH_REQ_XCOMP_PERM
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx & kTileAndInt8) == kTileAndInt8 &&
         syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}

struct Rate {
  const char *name;
  void (*run)(long rounds);
  int products; // in one accumulation
  bool (*runs_here)();
};

constexpr Rate kRates[] = {
    {"float32_fma", float32_fma, 8, always},
    {"int8_maddubs", int8_maddubs, 32, always},
    {"int8_sign", int8_sign, 32, always},
    {"int8_maddubs_pair", int8_maddubs_pair, 64, always},
    {"int16_madd", int16_madd, 16, always},
    {"int16_widen_madd", int16_widen_madd, 16, always},
    {"int8_dpbusd_256", int8_dpbusd_256, 32, has_vnni},
    {"int8_dpbusd_512", int8_dpbusd_512, 64, has_vnni},
    {"int16_dpwssd_256", int16_dpwssd_256, 16, has_vnni},
    {"int16_dpwssd_512", int16_dpwssd_512, 32, has_vnni},
    {"int16_widen_dpwssd_256", int16_widen_dpwssd_256, 16, has_vnni},
    {"int16_widen_dpwssd_512", int16_widen_dpwssd_512, 32, has_vnni},
    {"int8_tdpbusd", int8_tdpbusd, 16 * 16 * 64, has_amx},
};

constexpr size_t kKilobyte = 1024, kMegabyte = 1024 * kKilobyte;
constexpr size_t kWorkingSets[] = {16 * kKilobyte,  64 * kKilobyte,  128 * kKilobyte,
                                   256 * kKilobyte, 512 * kKilobyte, 1 * kMegabyte,
                                   2 * kMegabyte,   4 * kMegabyte,   8 * kMegabyte,
                                   16 * kMegabyte,  24 * kMegabyte,  64 * kMegabyte};

/// Reads `bytes` (a multiple of 256) of aligned memory, `rounds` times, with 256-bit loads and
/// nothing else.
__attribute__((target(AVX2))) void read_memory(const std::byte *data, size_t bytes, long rounds) {
  for (; rounds > 0; --rounds)
    for (const std::byte *p = data; p < data + bytes; p += 256)
      for (int k = 0; k < 256; k += 32)
        asm volatile("" : : "x"(_mm256_load_si256((const __m256i *)(p + k))));
}

/// The median of the seconds that one round of `run(rounds)` takes.
template <class Run> double seconds_a_round(Run run) {
  const auto seconds = [&](long rounds) {
    const auto start = std::chrono::steady_clock::now();
    run(rounds);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  long rounds = 1;
  while (seconds(rounds) < kMinSeconds) // also the warm-up
    rounds *= 2;
  std::vector<double> samples(kRepeats);
  for (double &sample : samples)
    sample = seconds(rounds) / rounds;
  std::nth_element(samples.begin(), samples.begin() + kRepeats / 2, samples.end());
  return samples[kRepeats / 2];
}

void print_cpu() {
  unsigned brand[13] = {}; // 48 characters and the final zero
  for (unsigned leaf = 0; leaf < 3; ++leaf) {
    unsigned *part = brand + 4 * leaf;
    __get_cpuid(0x80000002 + leaf, part, part + 1, part + 2, part + 3);
  }
  // A virtual machine may hide the model in the name, not in the signature.
  unsigned signature = 0, unused = 0;
  __get_cpuid(1, &signature, &unused, &unused, &unused);
  const unsigned family = (signature >> 8 & 0xf) + (signature >> 20 & 0xff);
  const unsigned model = (signature >> 4 & 0xf) | (signature >> 12 & 0xf0);
  std::printf("{\n  \"cpu\": \"%s (family %u, model %u)\"", (const char *)brand, family, model);
}

void print_bandwidth() {
  const size_t largest = *std::max_element(std::begin(kWorkingSets), std::end(kWorkingSets));
  const std::unique_ptr<std::byte, decltype(&std::free)> data(
      (std::byte *)std::aligned_alloc(64, largest), std::free);
  std::memset(data.get(), 1, largest); // pages that were never written all map to one page of zeros
  std::printf(",\n  \"bandwidth_gbs\": {");
  const char *separator = "";
  for (const size_t bytes : kWorkingSets) {
    const double seconds =
        seconds_a_round([&](long rounds) { read_memory(data.get(), bytes, rounds); });
    std::printf("%s\n    \"%zu\": %.1f", separator, bytes, bytes / seconds * 1e-9);
    separator = ",";
  }
  std::printf("\n  }");
}

void print_rates() {
  std::memset(activations, 3, sizeof activations);
  std::memset(weights, 5, sizeof weights);
  std::printf(",\n  \"gmacs\": {");
  const char *separator = "";
  for (const Rate &rate : kRates) {
    if (!rate.runs_here())
      continue;
    const double seconds = seconds_a_round(rate.run);
    std::printf("%s\n    \"%s\": %.1f", separator, rate.name,
                kSums * rate.products / seconds * 1e-9);
    separator = ",";
  }
  std::printf("\n  }\n}\n");
}

int main() {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
    std::fprintf(stderr, "limits: this CPU has no AVX2\n");
    return 1;
  }
  print_cpu();
  print_bandwidth();
  print_rates();
}
