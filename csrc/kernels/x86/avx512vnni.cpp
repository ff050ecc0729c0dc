// The LSTM on AVX-512 VNNI: one vpdpbusd on 512 bits stands for six instructions of AVX2, and 32
// registers hold eight batch rows of a tile. Cost of the dense inner loop for 32 weight rows x 4
// columns x 1 batch row: 1 broadcast, 2 vpdpbusd, whatever the weights are.
// A block-sparse block of 8 rows x 4 columns: its column, 1 broadcast, 1 vpdpbusd on 256 bits.
#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns about its own _mm512_undefined_*.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include <type_traits>

#include "common/numerics.h"
#include "kernels/implementations.h"
#include "kernels/vector/inline.h"
#include "kernels/vector/target_region.h"
#include "kernels/x86/detect.h"

#define LFK_ISA avx512vnni

LFK_TARGET_BEGIN("avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")

#include "kernels/x86/registers.inl"

namespace lstm_fastkernels {
namespace avx512vnni {
namespace {

struct Dot {
  using Register = __m512i;
  template <Arithmetic> using Sums = Register;
  static constexpr int kGates = 2;
  static constexpr int32_t kOffset = 0;
  // vpdpbusd never saturates: no weights need another form.
  static constexpr Arithmetic kPairs8 = Arithmetic::any8;

  template <Arithmetic> static constexpr int max_rows() { return 8; }

  static Register row_sums(const Matrix &m, int64_t row) {
    if (m.wide_row_sums)
      return _mm512_loadu_si512(m.row_sums + row * 4);
    return _mm512_cvtepi16_epi32(load_half(m.row_sums + row * 2));
  }
  static Register times(Register a, int32_t b) {
    return _mm512_mullo_epi32(a, _mm512_set1_epi32(b));
  }
  static Integers gate(Register sums, int i) {
    return i == 0 ? _mm512_castsi512_si256(sums) : _mm512_extracti64x4_epi64(sums, 1);
  }
  template <Arithmetic F> static Register activations(int32_t group) {
    return _mm512_set1_epi32(group);
  }
  template <Arithmetic F> static Register weights(const uint8_t *p) {
    return F == Arithmetic::signed16 ? _mm512_cvtepi8_epi16(load_half(p)) : _mm512_loadu_si512(p);
  }

  template <Arithmetic F> static Register add(Register sums, Register a, Register weights) {
    if constexpr (F == Arithmetic::float32)
      return _mm512_castps_si512(_mm512_fmadd_ps(
          _mm512_castsi512_ps(weights), _mm512_castsi512_ps(a), _mm512_castsi512_ps(sums)));
    if constexpr (F == Arithmetic::signed16)
      return _mm512_dpwssd_epi32(sums, a, weights);
    return _mm512_dpbusd_epi32(sums, a, weights);
  }

private:
  static __m256i load_half(const uint8_t *p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
  }
};

struct StripDot : Registers256 {
  template <Arithmetic> static constexpr int max_rows() { return 8; }

  template <Arithmetic F> static Integers add(Integers sums, Integers a, Integers weights) {
    if constexpr (F == Arithmetic::float32)
      return add_floats(sums, a, weights);
    if constexpr (F == Arithmetic::signed16)
      return _mm256_dpwssd_epi32(sums, a, weights);
    return _mm256_dpbusd_epi32(sums, a, weights);
  }
};

} // namespace
} // namespace avx512vnni
} // namespace lstm_fastkernels

#include "kernels/vector/products.inl"

#include "kernels/vector/lstm.inl"

namespace lstm_fastkernels {
namespace avx512vnni {

extern const Implementation kImplementation = {
    "avx512vnni", has_avx512vnni, {quantize_row, products, step}};

} // namespace avx512vnni
} // namespace lstm_fastkernels

LFK_TARGET_END
#endif
