// The LSTM on AVX2 and FMA. Cost of 8 weight rows x one 4-byte group of columns x 1 batch row:
//   offset8   vpmaddubsw mem, vpmaddwd, vpaddd                32 products
//   signed8   load, vpsignb, vpmaddubsw, vpmaddwd, vpaddd     32 products
//   signed16  vpmovsxbw mem, vpmaddwd, vpaddd                 16 products
//   float32   vfmadd mem                                       8 products
// and a broadcast (signed8: and vpabsb), which 4 of them share in a dense tile; a block-sparse
// block has its own, and loads its column.
#if defined(__x86_64__)
#include <immintrin.h>

#include <type_traits>

#include "common/numerics.h"
#include "kernels/implementations.h"
#include "kernels/x86/detect.h"
#include "kernels/x86/target_region.h"

#define LFK_ISA avx2

LFK_TARGET_BEGIN("avx2,fma")

#include "kernels/x86/registers.inl"

namespace lstm_fastkernels {
namespace avx2 {
namespace {

struct Dot : Registers256 {
  static constexpr int kGates = 1;

  static constexpr int max_rows() { return 2; } // as many as 16 registers hold
  static __m256i gate(Register sums, int) { return sums; }

  template <Arithmetic F>
  static Register add(Register sums, Register a, Register magnitude, Register weights) {
    if constexpr (F == Arithmetic::float32)
      return add_floats(sums, a, weights);
    if constexpr (F == Arithmetic::signed16)
      return _mm256_add_epi32(sums, _mm256_madd_epi16(a, weights));
    const Register s = F == Arithmetic::signed8 ? _mm256_sign_epi8(weights, a) : weights;
    const Register pairs = _mm256_maddubs_epi16(F == Arithmetic::signed8 ? magnitude : a, s);
    return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
};

struct Dot256 : Dot {
  static constexpr int max_rows() { return 4; } // of two strips
};

} // namespace
} // namespace avx2
} // namespace lstm_fastkernels

#include "kernels/x86/products.inl"

#include "kernels/x86/lstm.inl"

namespace lstm_fastkernels {
namespace avx2 {

extern const Implementation kImplementation = {"avx2", has_avx2, {quantize_row, products, step}};

} // namespace avx2
} // namespace lstm_fastkernels

LFK_TARGET_END
#endif
