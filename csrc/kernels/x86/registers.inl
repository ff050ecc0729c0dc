// What the policies of products.inl have in common: 8 sums of a block's 8 rows in 256 bits.
// Included inside a target region; everything here has internal linkage.

namespace lstm_fastkernels {
namespace LFK_ISA {
namespace {

struct Registers256 {
  using Register = __m256i;

  static Register zero() { return _mm256_setzero_si256(); }
  static Register minus_128_times(const uint8_t *row_sums) {
    const __m128i narrow = _mm_loadu_si128(reinterpret_cast<const __m128i *>(row_sums));
    return _mm256_sub_epi32(zero(), _mm256_slli_epi32(_mm256_cvtepi16_epi32(narrow), 7));
  }
  static Register broadcast(int32_t group) { return _mm256_set1_epi32(group); }
  static Register magnitude(Register a) { return _mm256_abs_epi8(a); }

  template <Arithmetic F> static Register weights(const uint8_t *p) {
    if constexpr (F == Arithmetic::signed16)
      return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
    else
      return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
  }

  static Register add_floats(Register sums, Register a, Register weights) {
    return _mm256_castps_si256(_mm256_fmadd_ps(_mm256_castsi256_ps(weights), _mm256_castsi256_ps(a),
                                               _mm256_castsi256_ps(sums)));
  }
};

} // namespace
} // namespace LFK_ISA
} // namespace lstm_fastkernels
