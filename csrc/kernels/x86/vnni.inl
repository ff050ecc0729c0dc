// The policies of products.inl on AVX-512 VNNI: one vpdpbusd on 512 bits stands for six
// instructions of AVX2, and 32 registers hold eight batch rows of a tile. Cost of the dense inner
// loop for 32 weight rows x 4 columns x 1 batch row: 1 broadcast, 2 vpdpbusd, whatever the weights
// are. 4-bit weights: 1 broadcast, 1 vpand, 1 vpxor, 2 vpdpbusd. A block-sparse block of 8 rows x 4
// columns: its column, 1 broadcast, 1 vpdpbusd on 256 bits. Included inside a target region, after
// registers.inl; everything here has internal linkage.

namespace lstm_fastkernels {
namespace LFK_ISA {
namespace {

LFK_INLINE __m512 to_floats(__m512i x) { return _mm512_cvtepi32_ps(x); }
LFK_INLINE __m512 fma(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
LFK_INLINE void store(float *p, __m512 x) { _mm512_storeu_ps(p, x); }
LFK_INLINE __m512 min(__m512 a, __m512 b) { return _mm512_min_ps(a, b); }
LFK_INLINE __m512 max(__m512 a, __m512 b) { return _mm512_max_ps(a, b); }
LFK_INLINE __m512 rounded(__m512 x) {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
LFK_INLINE __m512i rounded_to_integers(__m512 x) { return _mm512_cvtps_epi32(x); }
LFK_INLINE __m512i add(__m512i a, int32_t b) { return _mm512_add_epi32(a, _mm512_set1_epi32(b)); }
LFK_INLINE float least_of(__m512 x) { return _mm512_reduce_min_ps(x); }
LFK_INLINE bool has_nan(__m512 x) { return _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q) != 0; }
LFK_INLINE void store_integers(__m512i q, int bytes, uint8_t *to) {
  if (bytes == 2)
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), _mm512_cvtsepi32_epi16(q));
  else
    _mm_storeu_si128(reinterpret_cast<__m128i *>(to),
                     _mm512_cvtusepi32_epi8(_mm512_max_epi32(q, _mm512_setzero_si512())));
}

struct VnniDot {
  using Register = __m512i;
  template <Arithmetic> using Sums = Register;
  static constexpr int kGates = 2;
  static constexpr int kDensePairs = 64, kLeastTiles = 2;
  static constexpr bool kNarrowBytes = true;
  static constexpr int32_t kOffset = 0;
  // vpdpbusd never saturates: no weights need another form.
  static constexpr Arithmetic kPairs8 = Arithmetic::any8;

  template <Arithmetic F> static constexpr int max_rows() {
    return F == Arithmetic::int4 ? 6 : 8; // with room for values beside the sums
  }

  // vpdpbusd takes 5 cycles, and two begin in each: one row has 2 sums, and two have 4.
  template <Arithmetic F, int R> static constexpr int chains() {
    return F == Arithmetic::float32 ? 1 : R == 1 ? 4 : R == 2 ? 2 : 1;
  }
  static Register plus(Register a, Register b) { return _mm512_add_epi32(a, b); }

  static Register row_sums(const Matrix &m, int64_t row) {
    if (m.wide_row_sums)
      return _mm512_loadu_si512(m.row_sums + row * 4);
    return _mm512_cvtepi16_epi32(load_half(m.row_sums + row * 2));
  }
  static Register times(Register a, int32_t b) {
    return _mm512_mullo_epi32(a, _mm512_set1_epi32(b));
  }
  template <Arithmetic F> static __m512 values(Register sums) {
    return F == Arithmetic::float32 ? _mm512_castsi512_ps(sums) : to_floats(sums);
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

  using Int4Sums = Register;
  static __m512 load_values(const uint8_t *p) { return _mm512_loadu_ps(p); }
  static __m512 splat_values(float value) { return _mm512_set1_ps(value); }
  static __m512 join(Floats low, Floats high) {
    return _mm512_castpd_ps(_mm512_insertf64x4(_mm512_castps_pd(_mm512_castps256_ps512(low)),
                                               _mm256_castps_pd(high), 1));
  }
  // Of a byte 16 high + low, with its top bit the other way round the signed 16 (high - 8) + low:
  // its products with those of the low half subtracted are 16 times those of the high one less 8.
  template <int R>
  static LFK_INLINE void int4_sums(const uint8_t *w, const uint8_t *q, int64_t stride,
                                   int64_t groups, const int32_t (&offsets)[R],
                                   Register (&sums)[R][2]) {
    const Register low = _mm512_set1_epi8(15), top = _mm512_set1_epi8(-128);
    Register taken[2][R];
    LFK_UNROLLED (r, R)
      taken[0][r] = taken[1][r] = _mm512_set1_epi32(-offsets[r]);
    const auto add = [&](int64_t group) LFK_ALWAYS_INLINE {
      const Register both = _mm512_loadu_si512(w + group * 64);
      const Register halves[2] = {_mm512_and_si512(both, low), _mm512_xor_si512(both, top)};
      LFK_UNROLLED (r, R) {
        const Register a = _mm512_set1_epi32(read<int32_t>(q + r * stride, group));
        LFK_UNROLLED (half, 2)
          taken[half][r] = _mm512_dpbusd_epi32(taken[half][r], a, halves[half]);
      }
    };
    for (; groups >= 8; groups -= 8, w += 8 * 64, q += 8 * 4)
      LFK_UNROLLED (group, 8)
        add(group);
    for (int64_t group = 0; group < groups; ++group)
      add(group);
    LFK_UNROLLED (r, R) {
      sums[r][0] = taken[0][r];
      sums[r][1] = _mm512_srai_epi32(_mm512_sub_epi32(taken[1][r], taken[0][r]), 4);
    }
  }

private:
  static __m256i load_half(const uint8_t *p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
  }
};

struct StripDot : Registers256 {
  static constexpr bool kPaired = true;
  template <Arithmetic, int> static constexpr int chains() { return 2; }
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
} // namespace LFK_ISA
} // namespace lstm_fastkernels
