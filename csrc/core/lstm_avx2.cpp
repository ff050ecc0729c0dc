// The LSTM on AVX2 and FMA. Cost of 8 weight rows x one 4-byte group of columns x 1 batch row:
//   offset8   vpmaddubsw mem, vpmaddwd, vpaddd                32 products
//   signed8   load, vpsignb, vpmaddubsw, vpmaddwd, vpaddd     32 products
//   signed16  vpmovsxbw mem, vpmaddwd, vpaddd                 16 products
//   float32   vfmadd mem                                       8 products
// and a broadcast (signed8: and vpabsb), which 4 of them share in a dense tile; a block-sparse block
// has its own, and loads its column.
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
  using Register = __m256i;
  static constexpr int kGates = 1;

  static constexpr int max_rows() { return 2; } // as many as 16 registers hold

  static Register zero() { return _mm256_setzero_si256(); }
  static Register minus_128_times(const uint8_t *row_sums) {
    const __m128i narrow = _mm_loadu_si128(reinterpret_cast<const __m128i *>(row_sums));
    return _mm256_sub_epi32(zero(), _mm256_slli_epi32(_mm256_cvtepi16_epi32(narrow), 7));
  }
  static Register broadcast(int32_t group) { return _mm256_set1_epi32(group); }
  static Register magnitude(Register a) { return _mm256_abs_epi8(a); }
  static __m256i gate(Register sums, int) { return sums; }

  template <Form F> static Register weights(const uint8_t *p) {
    if constexpr (F == Form::signed16)
      return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
    else
      return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
  }

  template <Form F>
  static Register add(Register sums, Register a, Register magnitude, Register weights) {
    if constexpr (F == Form::float32)
      return _mm256_castps_si256(_mm256_fmadd_ps(_mm256_castsi256_ps(weights),
                                                 _mm256_castsi256_ps(a),
                                                 _mm256_castsi256_ps(sums)));
    if constexpr (F == Form::signed16)
      return _mm256_add_epi32(sums, _mm256_madd_epi16(a, weights));
    const Register s = F == Form::signed8 ? _mm256_sign_epi8(weights, a) : weights;
    const Register pairs = _mm256_maddubs_epi16(F == Form::signed8 ? magnitude : a, s);
    return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
};

// Blocks of two strips times four rows.
struct Dot256 : Dot {
  static constexpr int max_rows() { return 4; }
};

} // namespace
} // namespace lstm_fastkernels

#include "products_x86.inl"

#include "lstm_x86.inl"

namespace lstm_fastkernels {
const Kernels kAvx2Kernels = {quantize_row, products, step};
} // namespace lstm_fastkernels

LFK_TARGET_END
#endif
