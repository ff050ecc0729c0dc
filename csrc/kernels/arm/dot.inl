// The policies of products.inl, over how the including file multiplies bytes: Bytes::Sums, and
// Bytes::add(sums, activations less 128, weights), Bytes::add_unsigned(sums, activations, weights
// of 4 bits). Everything here has internal linkage.

namespace lstm_fastkernels {
namespace LFK_ISA {
namespace {

struct Dot {
  // Of signed bytes, no product saturates: no weights need another form.
  static constexpr Arithmetic kPairs8 = Arithmetic::any8;
  static constexpr int32_t kOffset = 128;
  static constexpr int kGates = 1;
  static constexpr int kDensePairs = 48, kLeastTiles = 1;
  static constexpr bool kNarrowBytes = false;

  template <Arithmetic F>
  using Sums =
      std::conditional_t<F == Arithmetic::float32, Integers,
                         std::conditional_t<F == Arithmetic::signed16, Parts, Bytes::Sums>>;

  // Their sums fill 16 of the 32 registers; the others are for weights, activations and products.
  template <Arithmetic F> static constexpr int kMostStrips = 16 * 16 / sizeof(Sums<F>);

  template <Arithmetic F> static constexpr int max_rows() {
    return kMostStrips<F> / kStripsPerTile;
  }
  template <Arithmetic, int> static constexpr int chains() { return 1; }

  static LFK_INLINE Integers whole(Integers sums) { return sums; }
  static LFK_INLINE Integers whole(Parts sums) {
    return {vpaddq_s32(sums.rows01, sums.rows23), vpaddq_s32(sums.rows45, sums.rows67)};
  }
  template <Arithmetic F> static LFK_INLINE Floats values(Sums<F> sums) {
    return F == Arithmetic::float32 ? as_floats(whole(sums)) : to_floats(whole(sums));
  }

  static LFK_INLINE Integers row_sums(const Matrix &m, int64_t row) {
    if (m.wide_row_sums) {
      const auto *const sums = reinterpret_cast<const int32_t *>(m.row_sums) + row;
      return {vld1q_s32(sums), vld1q_s32(sums + 4)};
    }
    const int16x8_t sums = vld1q_s16(reinterpret_cast<const int16_t *>(m.row_sums) + row);
    return {vmovl_s16(vget_low_s16(sums)), vmovl_high_s16(sums)};
  }
  static LFK_INLINE Integers times(Integers a, int32_t b) {
    return {vmulq_n_s32(a.low, b), vmulq_n_s32(a.high, b)};
  }

  template <Arithmetic F> static LFK_INLINE auto activations(int32_t group) {
    const int32x4_t a = vdupq_n_s32(group);
    if constexpr (F == Arithmetic::float32)
      return vreinterpretq_f32_s32(a);
    else if constexpr (F == Arithmetic::signed16)
      return vreinterpretq_s16_s32(a);
    else
      return veorq_s8(vreinterpretq_s8_s32(a), vdupq_n_s8(-128));
  }

  template <Arithmetic F> static LFK_INLINE auto weights(const uint8_t *p) {
    const auto *const bytes = reinterpret_cast<const int8_t *>(p);
    if constexpr (F == Arithmetic::float32) {
      return load(reinterpret_cast<const float *>(p));
    } else if constexpr (F == Arithmetic::signed16) {
      const int8x16_t w = vld1q_s8(bytes);
      return Pair<int16x8_t>{vmovl_s8(vget_low_s8(w)), vmovl_high_s8(w)};
    } else {
      return Pair<int8x16_t>{vld1q_s8(bytes), vld1q_s8(bytes + 16)};
    }
  }

  template <Arithmetic F, class Activations, class Weights>
  static LFK_INLINE Sums<F> add(Sums<F> sums, Activations a, Weights w) {
    if constexpr (F == Arithmetic::float32) {
      return as_integers(fma(w, {a, a}, as_floats(sums)));
    } else if constexpr (F == Arithmetic::signed16) {
      const int16x4_t half = vget_low_s16(a);
      return {vmlal_s16(sums.rows01, vget_low_s16(w.low), half),
              vmlal_high_s16(sums.rows23, w.low, a),
              vmlal_s16(sums.rows45, vget_low_s16(w.high), half),
              vmlal_high_s16(sums.rows67, w.high, a)};
    } else {
      return Bytes::add(sums, a, w);
    }
  }

  using Int4Sums = Integers;
  static LFK_INLINE Floats load_values(const uint8_t *p) {
    return load(reinterpret_cast<const float *>(p));
  }
  static LFK_INLINE Floats splat_values(float value) { return splat(value); }
  static LFK_INLINE Floats join(Floats first, Floats) { return first; }

  template <int R>
  static LFK_INLINE void int4_sums(const uint8_t *w, const uint8_t *q, int64_t stride,
                                   int64_t groups, const int32_t (&offsets)[R],
                                   Integers (&sums)[R][kStripsPerTile]) {
    Bytes::Sums taken[R][kStripsPerTile];
    LFK_UNROLLED (r, R) {
      LFK_UNROLLED (g, kStripsPerTile)
        taken[r][g] = splat(-offsets[r]);
    }
    for (const uint8_t *const end = q + groups * 4; q != end; q += 4, w += 64) {
      LFK_UNROLLED (i, 2) { // rows 8 i and those 16 further down
        const Pair<uint8x16_t> both = {vld1q_u8(w + i * 32), vld1q_u8(w + i * 32 + 16)};
        const uint8x16_t low = vdupq_n_u8(15);
        const Pair<uint8x16_t> halves[2] = {{vandq_u8(both.low, low), vandq_u8(both.high, low)},
                                            {vshrq_n_u8(both.low, 4), vshrq_n_u8(both.high, 4)}};
        LFK_UNROLLED (r, R) {
          const uint8x16_t a = vreinterpretq_u8_s32(vdupq_n_s32(read<int32_t>(q + r * stride, 0)));
          LFK_UNROLLED (half, 2)
            taken[r][half * 2 + i] = Bytes::add_unsigned(taken[r][half * 2 + i], a, halves[half]);
        }
      }
    }
    LFK_UNROLLED (r, R) {
      LFK_UNROLLED (g, kStripsPerTile)
        sums[r][g] = whole(taken[r][g]);
    }
  }
};

struct StripDot : Dot {
  static constexpr bool kPaired = false;
  template <Arithmetic F> static constexpr int max_rows() { return kMostStrips<F> / 2; } // of two
  template <Arithmetic F> static constexpr int strips() { return kMostStrips<F>; }
};

} // namespace
} // namespace LFK_ISA
} // namespace lstm_fastkernels
