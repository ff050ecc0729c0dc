// 8 floats and 8 integers in 256 bits, and what the policies of products.inl have in common.
// Included inside a target region; everything here has internal linkage.

namespace lstm_fastkernels {
namespace LFK_ISA {
namespace {

// Operators of floats are the compiler's.
using Floats = __m256;
using Integers = __m256i;

LFK_INLINE Floats splat(float value) { return _mm256_set1_ps(value); }
LFK_INLINE Integers splat(int32_t value) { return _mm256_set1_epi32(value); }

LFK_INLINE Floats load(const float *p) { return _mm256_loadu_ps(p); }
// 8 float16.
LFK_INLINE Floats load_halves(const uint8_t *p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
}
LFK_INLINE void store(float *p, Floats x) { _mm256_storeu_ps(p, x); }
LFK_INLINE Floats load_first(const float *p, int count) {
  const Integers lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_maskload_ps(p, _mm256_cmpgt_epi32(splat(count), lane));
}

LFK_INLINE Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
LFK_INLINE Floats min(Floats a, Floats b) { return _mm256_min_ps(a, b); }
LFK_INLINE Floats max(Floats a, Floats b) { return _mm256_max_ps(a, b); }
LFK_INLINE Floats rounded(Floats x) {
  return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
LFK_INLINE Integers rounded_to_integers(Floats x) { return _mm256_cvtps_epi32(x); }
LFK_INLINE Floats to_floats(Integers x) { return _mm256_cvtepi32_ps(x); }
LFK_INLINE Floats as_floats(Integers bits) { return _mm256_castsi256_ps(bits); }
LFK_INLINE Integers add(Integers a, int32_t b) { return _mm256_add_epi32(a, splat(b)); }

LFK_INLINE float least_of(Floats x) {
  __m128 least = _mm_min_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  least = _mm_min_ps(least, _mm_movehl_ps(least, least));
  return _mm_cvtss_f32(_mm_min_ss(least, _mm_movehdup_ps(least)));
}
LFK_INLINE bool has_nan(Floats x) {
  return _mm256_movemask_ps(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)) != 0;
}

LFK_INLINE int32_t sum_of_bytes(const uint8_t *p, int64_t count) {
  Integers sums = _mm256_setzero_si256();
  for (int64_t i = 0; i < count; i += 32) {
    const Integers bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p + i));
    sums = _mm256_add_epi64(sums, _mm256_sad_epu8(bytes, _mm256_setzero_si256()));
  }
  const __m128i two =
      _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  return _mm_cvtsi128_si32(_mm_add_epi64(two, _mm_srli_si128(two, 8)));
}

LFK_INLINE void store_integers(Integers q, int bytes, uint8_t *to) {
  const __m128i shorts = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
  if (bytes == 2)
    _mm_storeu_si128(reinterpret_cast<__m128i *>(to), shorts);
  else
    _mm_storel_epi64(reinterpret_cast<__m128i *>(to), _mm_packus_epi16(shorts, shorts));
}

// 8 sums of a block's 8 rows.
struct Registers256 {
  template <Arithmetic> using Sums = Integers;
  static constexpr int kGates = 1;
  static constexpr int kDensePairs = 48, kLeastTiles = 1;
  static constexpr bool kNarrowBytes = false;
  static constexpr int32_t kOffset = 0;
  static constexpr bool kPaired = false;

  static Integers plus(Integers a, Integers b) { return _mm256_add_epi32(a, b); }
  template <Arithmetic> static constexpr int strips() { return kSliceStrips; }
  template <Arithmetic F> static Floats values(Integers sums) {
    return F == Arithmetic::float32 ? as_floats(sums) : to_floats(sums);
  }

  static Integers row_sums(const Matrix &m, int64_t row) {
    if (m.wide_row_sums)
      return load(m.row_sums + row * 4);
    return _mm256_cvtepi16_epi32(load_half(m.row_sums + row * 2));
  }
  static Integers times(Integers a, int32_t b) { return _mm256_mullo_epi32(a, splat(b)); }
  template <Arithmetic F> static Integers activations(int32_t group) { return splat(group); }
  template <Arithmetic F> static Integers weights(const uint8_t *p) {
    return F == Arithmetic::signed16 ? _mm256_cvtepi8_epi16(load_half(p)) : load(p);
  }

  static Integers add_floats(Integers sums, Integers a, Integers weights) {
    return _mm256_castps_si256(fma(as_floats(weights), as_floats(a), as_floats(sums)));
  }

protected:
  static Integers load(const uint8_t *p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
  }
  static __m128i load_half(const uint8_t *p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
  }
};

} // namespace
} // namespace LFK_ISA
} // namespace lstm_fastkernels
