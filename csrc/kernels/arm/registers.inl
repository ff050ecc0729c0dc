// 8 floats and 8 integers in pairs of 128-bit registers. Everything here has internal linkage.

namespace lstm_fastkernels {
namespace LFK_ISA {
namespace {

template <class Half> struct Pair {
  Half low, high;
};

using Floats = Pair<float32x4_t>;
using Integers = Pair<int32x4_t>;

LFK_INLINE Floats splat(float value) { return {vdupq_n_f32(value), vdupq_n_f32(value)}; }
LFK_INLINE Integers splat(int32_t value) { return {vdupq_n_s32(value), vdupq_n_s32(value)}; }

LFK_INLINE Floats load(const float *p) { return {vld1q_f32(p), vld1q_f32(p + 4)}; }
// 8 float16.
LFK_INLINE Floats load_halves(const uint8_t *p) {
  const float16x8_t halves = vreinterpretq_f16_u8(vld1q_u8(p));
  return {vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves)};
}
LFK_INLINE void store(float *p, Floats x) {
  vst1q_f32(p, x.low);
  vst1q_f32(p + 4, x.high);
}
LFK_INLINE Floats load_first(const float *p, int count) {
  float all[8] = {};
  std::memcpy(all, p, static_cast<size_t>(count) * sizeof *p);
  return load(all);
}

LFK_INLINE Floats operator*(Floats a, Floats b) {
  return {vmulq_f32(a.low, b.low), vmulq_f32(a.high, b.high)};
}
LFK_INLINE Floats operator/(Floats a, Floats b) {
  return {vdivq_f32(a.low, b.low), vdivq_f32(a.high, b.high)};
}
LFK_INLINE Floats operator+(Floats a, Floats b) {
  return {vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)};
}
LFK_INLINE Floats operator-(Floats a, Floats b) {
  return {vsubq_f32(a.low, b.low), vsubq_f32(a.high, b.high)};
}
LFK_INLINE Floats fma(Floats a, Floats b, Floats c) {
  return {vfmaq_f32(c.low, a.low, b.low), vfmaq_f32(c.high, a.high, b.high)};
}
LFK_INLINE Floats min(Floats a, Floats b) {
  return {vminq_f32(a.low, b.low), vminq_f32(a.high, b.high)};
}
LFK_INLINE Floats max(Floats a, Floats b) {
  return {vmaxq_f32(a.low, b.low), vmaxq_f32(a.high, b.high)};
}
LFK_INLINE Floats rounded(Floats x) { return {vrndnq_f32(x.low), vrndnq_f32(x.high)}; }
LFK_INLINE Integers rounded_to_integers(Floats x) {
  return {vcvtnq_s32_f32(x.low), vcvtnq_s32_f32(x.high)};
}
LFK_INLINE Floats to_floats(Integers x) { return {vcvtq_f32_s32(x.low), vcvtq_f32_s32(x.high)}; }
LFK_INLINE Floats as_floats(Integers bits) {
  return {vreinterpretq_f32_s32(bits.low), vreinterpretq_f32_s32(bits.high)};
}
LFK_INLINE Integers as_integers(Floats bits) {
  return {vreinterpretq_s32_f32(bits.low), vreinterpretq_s32_f32(bits.high)};
}
LFK_INLINE Pair<uint32x4_t> as_unsigned(Integers x) {
  return {vreinterpretq_u32_s32(x.low), vreinterpretq_u32_s32(x.high)};
}
LFK_INLINE Integers as_integers(Pair<uint32x4_t> x) {
  return {vreinterpretq_s32_u32(x.low), vreinterpretq_s32_u32(x.high)};
}
LFK_INLINE Integers add(Integers a, int32_t b) {
  return {vaddq_s32(a.low, vdupq_n_s32(b)), vaddq_s32(a.high, vdupq_n_s32(b))};
}

LFK_INLINE float least_of(Floats x) { return vminvq_f32(vminq_f32(x.low, x.high)); }
LFK_INLINE bool has_nan(Floats x) {
  const uint32x4_t numbers = vandq_u32(vceqq_f32(x.low, x.low), vceqq_f32(x.high, x.high));
  return vminvq_u32(numbers) == 0;
}

LFK_INLINE int32_t sum_of_bytes(const uint8_t *p, int64_t count) {
  uint32_t sum = 0;
  for (int64_t i = 0; i < count; i += 16)
    sum += vaddlvq_u8(vld1q_u8(p + i));
  return static_cast<int32_t>(sum);
}

LFK_INLINE void store_integers(Integers q, int bytes, uint8_t *to) {
  const int16x8_t shorts = vcombine_s16(vqmovn_s32(q.low), vqmovn_s32(q.high));
  if (bytes == 2)
    vst1q_u8(to, vreinterpretq_u8_s16(shorts));
  else
    vst1_u8(to, vqmovun_s16(shorts));
}

// The sums of 8 rows, each in two parts side by side, as widening products leave them.
struct Parts {
  int32x4_t rows01, rows23, rows45, rows67;

  LFK_INLINE Parts() : Parts(splat(0)) {}
  LFK_INLINE Parts(Integers sums)
      : Parts(vzip1q_s32(sums.low, vdupq_n_s32(0)), vzip2q_s32(sums.low, vdupq_n_s32(0)),
              vzip1q_s32(sums.high, vdupq_n_s32(0)), vzip2q_s32(sums.high, vdupq_n_s32(0))) {}
  LFK_INLINE Parts(int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d)
      : rows01(a), rows23(b), rows45(c), rows67(d) {}
};

} // namespace
} // namespace LFK_ISA
} // namespace lstm_fastkernels
