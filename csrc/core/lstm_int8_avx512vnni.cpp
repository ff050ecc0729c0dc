// int8 LSTM on AVX-512 VNNI with 256-bit registers: one vpdpbusd stands for the three instructions
// of AVX2, and 32 registers hold six batch rows of a tile.
#if defined(__x86_64__)
#include <immintrin.h>

#include <type_traits>

#include "kernels.h"
#include "numerics.h"
#include "target_region.h"

LFK_TARGET_BEGIN("avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")

namespace lstm_fastkernels {
namespace {

struct Dot {
  static constexpr int max_rows(Form) { return 6; }

  static __m256i u8s8(__m256i acc, __m256i u, __m256i s) {
    return _mm256_dpbusd_epi32(acc, u, s);
  }
  static __m256i s16s16(__m256i acc, __m256i a, __m256i b) {
    return _mm256_dpwssd_epi32(acc, a, b);
  }
};

}  // namespace
}  // namespace lstm_fastkernels

#include "lstm_int8_x86.inl"

namespace lstm_fastkernels {
const Kernels kAvx512VnniKernels = {quantize_row, input_products, step, project};
}  // namespace lstm_fastkernels

LFK_TARGET_END
#endif
