// The LSTM on AVX2 and FMA. Cost of 8 weight rows x one 4-byte group of columns x 1 batch row:
//   pairs8    vpmaddubsw mem, vpmaddwd, vpaddd                            32 products
//   any8      load, vpsllw, 2 vpsraw of a tile, 2 vpmaddwd, 2 vpaddd      32 products
//   signed16  vpmovsxbw mem, vpmaddwd, vpaddd                             16 products
//   float32   vfmadd mem                                                   8 products
//   int4      half a load, 1.5 of vpand and vpsrlw, vpmaddubsw, vpaddw,    32 products
//             a quarter of vpmaddwd and vpaddd
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
#include "weights/packed_int4.h"

#define LFK_ISA avx2

LFK_TARGET_BEGIN("avx2,fma,f16c")

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
  template <Arithmetic, int> static constexpr int chains() { return 1; }

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

  using Int4Sums = Integers;
  static Floats load_values(const uint8_t *p) { return as_floats(load(p)); }
  static Floats splat_values(float value) { return splat(value); }
  static Floats join(Floats first, Floats) { return first; }

  // A pass takes 8 rows of the low halves of bytes and 8 of the high ones.
  template <int R>
  static LFK_INLINE void int4_sums(const uint8_t *w, const uint8_t *q, int64_t stride,
                                   int64_t groups, const int32_t (&offsets)[R],
                                   Integers (&sums)[R][4]) {
    LFK_UNROLLED (i, 2) {
      Integers taken[R][2];
      LFK_UNROLLED (r, R)
        taken[r][0] = taken[r][1] = splat(-offsets[r]);
      int64_t group = 0;
      for (; group + 4 <= groups; group += 4)
        add_int4<R, 4>(w + group * 64 + i * 32, q + group * 4, stride, taken);
      for (; group < groups; ++group)
        add_int4<R, 1>(w + group * 64 + i * 32, q + group * 4, stride, taken);
      LFK_UNROLLED (r, R) {
        sums[r][i] = taken[r][0];
        sums[r][2 + i] = taken[r][1];
      }
    }
  }

private:
  // Four groups of columns add up to 4 * 2 * 255 * 15 < 2^15 at most.
  template <int R, int kGroups>
  static LFK_INLINE void add_int4(const uint8_t *w, const uint8_t *q, int64_t stride,
                                  Integers (&sums)[R][2]) {
    const Integers low = _mm256_set1_epi8(15);
    Integers pairs[R][2];
    LFK_UNROLLED (group, kGroups) {
      const Integers both = load(w + group * 64);
      const Integers halves[2] = {_mm256_and_si256(both, low),
                                  _mm256_and_si256(_mm256_srli_epi16(both, 4), low)};
      LFK_UNROLLED (r, R) {
        const Integers a = splat(read<int32_t>(q + r * stride, group));
        LFK_UNROLLED (half, 2) {
          const Integers products = _mm256_maddubs_epi16(a, halves[half]);
          pairs[r][half] = group == 0 ? products : _mm256_add_epi16(pairs[r][half], products);
        }
      }
    }
    LFK_UNROLLED (r, R) {
      LFK_UNROLLED (half, 2)
        sums[r][half] = _mm256_add_epi32(sums[r][half],
                                         _mm256_madd_epi16(pairs[r][half], _mm256_set1_epi16(1)));
    }
  }
};

struct StripDot : Dot {
  template <Arithmetic> static constexpr int max_rows() { return 4; } // of two strips
};

} // namespace
} // namespace avx2
} // namespace lstm_fastkernels

#include "kernels/vector/products.inl"

#include "kernels/vector/multiply.inl"

#include "kernels/vector/lstm.inl"

namespace lstm_fastkernels {
namespace avx2 {

extern const Implementation kImplementation = {
    "avx2", has_avx2, {quantize_row, products, look_up, step}};

} // namespace avx2
} // namespace lstm_fastkernels

LFK_TARGET_END
#endif
