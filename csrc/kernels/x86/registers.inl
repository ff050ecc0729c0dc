// What the policies of products.inl have in common: 8 sums of a block's 8 rows in 256 bits.
// Included inside a target region; everything here has internal linkage.

namespace lstm_fastkernels {
namespace LFK_ISA {
namespace {

#define LFK_ALWAYS_INLINE __attribute__((always_inline))
#define LFK_INLINE inline LFK_ALWAYS_INLINE

// Loops over registers are unrolled whatever the compiler thinks of it: an array that is indexed by
// a variable would live in memory.
#define LFK_UNROLLED(i, n) _Pragma("GCC unroll 8") for (int i = 0; i < (n); ++i)

struct Registers256 {
  using Register = __m256i;

  static Register zero() { return _mm256_setzero_si256(); }
  static Register row_sums(const Matrix &m, int64_t row) {
    if (m.wide_row_sums)
      return load(m.row_sums + row * 4);
    return _mm256_cvtepi16_epi32(load_half(m.row_sums + row * 2));
  }
  static Register times(Register a, int32_t b) {
    return _mm256_mullo_epi32(a, _mm256_set1_epi32(b));
  }
  template <Arithmetic F> static Register activations(int32_t group) {
    return _mm256_set1_epi32(group);
  }
  template <Arithmetic F> static Register weights(const uint8_t *p) {
    return F == Arithmetic::signed16 ? _mm256_cvtepi8_epi16(load_half(p)) : load(p);
  }

  static Register add_floats(Register sums, Register a, Register weights) {
    return _mm256_castps_si256(_mm256_fmadd_ps(_mm256_castsi256_ps(weights), _mm256_castsi256_ps(a),
                                               _mm256_castsi256_ps(sums)));
  }

  static Register load(const uint8_t *p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
  }
  static Register times_float(Register a, int32_t b) {
    return _mm256_castps_si256(
        _mm256_mul_ps(_mm256_set1_ps(static_cast<float>(b)), _mm256_castsi256_ps(a)));
  }
  static Register add_scaled(Register a, Register integers, Register scales) {
    return _mm256_castps_si256(_mm256_fmadd_ps(
        _mm256_cvtepi32_ps(integers), _mm256_castsi256_ps(scales), _mm256_castsi256_ps(a)));
  }

protected:
  static __m128i load_half(const uint8_t *p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
  }
};

} // namespace
} // namespace LFK_ISA
} // namespace lstm_fastkernels
