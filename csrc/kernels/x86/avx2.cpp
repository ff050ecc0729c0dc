// The LSTM on AVX2 and FMA. Cost of 8 weight rows x one 4-byte group of columns x 1 batch row:
//   pairs8    vpmaddubsw mem, vpmaddwd, vpaddd                            32 products
//   any8      load, vpsllw, 2 vpsraw of a tile, 2 vpmaddwd, 2 vpaddd      32 products
//   signed16  vpmovsxbw mem, vpmaddwd, vpaddd                             16 products
//   float32   vfmadd mem                                                   8 products
// and a broadcast (any8: vpand, vpsrlw), which 4 of them share in a dense tile; a block-sparse
// block has its own, and loads its column.
#if defined(__x86_64__)
#include <immintrin.h>

#include <type_traits>

#include "common/numerics.h"
#include "kernels/implementations.h"
#include "kernels/vector/inline.h"
#include "kernels/vector/target_region.h"
#include "kernels/x86/detect.h"

#define LFK_ISA avx2

LFK_TARGET_BEGIN("avx2,fma")

#include "kernels/x86/registers.inl"

namespace lstm_fastkernels {
namespace avx2 {
namespace {

// 8-bit numbers as 16-bit ones: those of even and of odd columns.
struct Columns {
  __m256i even, odd;
};

struct Dot : Registers256 {
  // Weights that are not pair-safe would saturate.
  static constexpr Arithmetic kPairs8 = Arithmetic::pairs8;

  template <Arithmetic> static constexpr int max_rows() { return 2; } // as 16 registers hold

  template <Arithmetic F> static auto activations(int32_t group) {
    const Integers a = splat(group);
    if constexpr (F == Arithmetic::any8)
      return Columns{_mm256_and_si256(a, _mm256_set1_epi16(255)), _mm256_srli_epi16(a, 8)};
    else
      return a;
  }

  template <Arithmetic F> static auto weights(const uint8_t *p) {
    if constexpr (F == Arithmetic::any8) {
      const Integers w = load(p);
      return Columns{_mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8), _mm256_srai_epi16(w, 8)};
    } else {
      return Registers256::weights<F>(p);
    }
  }

  template <Arithmetic F, class Operands>
  static Integers add(Integers sums, Operands a, Operands weights) {
    if constexpr (F == Arithmetic::any8)
      return _mm256_add_epi32(_mm256_add_epi32(sums, _mm256_madd_epi16(a.even, weights.even)),
                              _mm256_madd_epi16(a.odd, weights.odd));
    else if constexpr (F == Arithmetic::float32)
      return add_floats(sums, a, weights);
    else if constexpr (F == Arithmetic::signed16)
      return _mm256_add_epi32(sums, _mm256_madd_epi16(a, weights));
    else
      return _mm256_add_epi32(
          sums, _mm256_madd_epi16(_mm256_maddubs_epi16(a, weights), _mm256_set1_epi16(1)));
  }
};

struct StripDot : Dot {
  template <Arithmetic> static constexpr int max_rows() { return 4; } // of two strips
};

} // namespace
} // namespace avx2
} // namespace lstm_fastkernels

#include "kernels/vector/products.inl"

#include "kernels/vector/lstm.inl"

namespace lstm_fastkernels {
namespace avx2 {

extern const Implementation kImplementation = {"avx2", has_avx2, {quantize_row, products, step}};

} // namespace avx2
} // namespace lstm_fastkernels

LFK_TARGET_END
#endif
