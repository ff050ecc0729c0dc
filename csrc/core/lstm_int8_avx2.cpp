// int8 LSTM on AVX2 and FMA. Cost of the inner loop for 32 weights rows x 4 columns x 1 batch row:
//   offset8   4 x (vpmaddubsw mem, vpmaddwd, vpaddd) + 1 broadcast      128 products, 12 operations
//   signed8   4 x (load, vpsignb, vpmaddubsw, vpmaddwd, vpaddd) + vpabsb
//   signed16  4 x (vpmovsxbw mem, vpmaddwd, vpaddd) + 1 broadcast       64 products (2 columns)
#if defined(__x86_64__)
#include <immintrin.h>

#include <type_traits>

#include "kernels.h"
#include "numerics.h"
#include "target_region.h"

LFK_TARGET_BEGIN("avx2,fma")

namespace lstm_fastkernels {
namespace {

struct Dot {
  // Batch rows that share one pass over a tile: as many as 16 registers hold.
  static constexpr int max_rows(Form form) { return form == Form::offset8 ? 3 : 2; }

  // acc + sum over 4 bytes of u8 * s8, where no pair's sum leaves int16
  static __m256i u8s8(__m256i acc, __m256i u, __m256i s) {
    const __m256i pairs = _mm256_maddubs_epi16(u, s);
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  static __m256i s16s16(__m256i acc, __m256i a, __m256i b) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(a, b));
  }
};

}  // namespace
}  // namespace lstm_fastkernels

#include "lstm_int8_x86.inl"

namespace lstm_fastkernels {
const Kernels kAvx2Kernels = {quantize_row, input_products, step, project};
}  // namespace lstm_fastkernels

LFK_TARGET_END
#endif
