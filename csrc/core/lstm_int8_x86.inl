// The int8 LSTM kernels of x86, over a `Dot` that the including file defines for its instruction
// set. Included inside a target region; everything here has internal linkage.
//
// A tile of 8 units x 4 gates times R batch rows lives in int32 sums in registers. Columns go by
// groups of 4 bytes: one broadcast of a row's group meets a tile's weights, which are streamed
// once. The epilogue reads the sums of up to kBlock (tile, row) pairs from a small buffer, so that
// the long latency of the gates overlaps from pair to pair. It works on 256 bits everywhere.
//
// Dot gives: Register, of kGates gates x 8 sums; max_rows(form); zero(); minus_128_times(row sums);
// broadcast(4 bytes); magnitude(activations); weights<form>(address); add<form>(sums, activations,
// their magnitudes, weights); gate(register, i), the i-th gate's 8 sums.

namespace lstm_fastkernels {
namespace {

#define LFK_ALWAYS_INLINE __attribute__((always_inline))
#define LFK_INLINE inline LFK_ALWAYS_INLINE

constexpr int kBlock = 12;

LFK_INLINE __m256 load_floats(const uint8_t *array, int64_t i) {
  return _mm256_loadu_ps(reinterpret_cast<const float *>(array + i * 4));
}

// The scales of sums: that of the activation row times those of 8 weight rows from i on.
LFK_INLINE __m256 scales_of(const Matrix &m, int64_t i, float row_scale) {
  return _mm256_mul_ps(_mm256_set1_ps(row_scale), load_floats(m.scales, i));
}

// ---- products ----

constexpr int kRegisters = 4 / Dot::kGates;

template <int R> struct Sums {
  Dot::Register of[R][kRegisters];
};

template <Form F, int R>
LFK_INLINE Sums<R> tile_products(const Matrix &m, int64_t tile, const uint8_t *q, int64_t stride) {
  Sums<R> sums;
  for (int i = 0; i < kRegisters; ++i) {
    Dot::Register start = Dot::zero();
    // Activations are offset by 128, which adds 128 * (sum of the row's weights).
    if constexpr (F == Form::offset8)
      start = Dot::minus_128_times(m.row_sums + (tile * 4 + i * Dot::kGates) * kTileUnits * 2);
    for (int r = 0; r < R; ++r)
      sums.of[r][i] = start;
  }
  constexpr int kRegisterBytes = Dot::kGates * kTileUnits * columns_per_group(F);
  const uint8_t *w = m.tiles + tile * m.tile_bytes();
  const uint8_t *const end = q + m.groups * 4;
#pragma GCC unroll 2
  for (; q != end; q += 4, w += kRegisters * kRegisterBytes) {
    Dot::Register weights[kRegisters];
    for (int i = 0; i < kRegisters; ++i)
      weights[i] = Dot::weights<F>(w + i * kRegisterBytes);
    for (int r = 0; r < R; ++r) {
      const Dot::Register a = Dot::broadcast(read<int32_t>(q + r * stride, 0));
      const Dot::Register magnitude = F == Form::signed8 ? Dot::magnitude(a) : a;
      for (int i = 0; i < kRegisters; ++i)
        sums.of[r][i] = Dot::add<F>(sums.of[r][i], a, magnitude, weights[i]);
    }
  }
  return sums;
}

// Calls emit(row, gate, sums as float) for `count` rows of one tile from `row` on, 1 <= count <= R.
template <Form F, int R, class Emit>
LFK_INLINE void row_products(const Matrix &m, int64_t tile, const ActivationRows &x, int64_t row,
                             int64_t count, const Emit &emit) {
  if constexpr (R > 1) {
    if (count < R)
      return row_products<F, R - 1>(m, tile, x, row, count, emit);
  }
  const Sums<R> sums = tile_products<F, R>(m, tile, x.data + row * x.stride, x.stride);
  for (int r = 0; r < R; ++r)
    for (int g = 0; g < 4; ++g)
      emit(row + r, g, _mm256_cvtepi32_ps(Dot::gate(sums.of[r][g / Dot::kGates], g % Dot::kGates)));
}

template <Form F, class Emit>
LFK_INLINE void products(const Matrix &m, int64_t tile, const ActivationRows &x, int64_t rows,
                         const Emit &emit) {
  constexpr int kMax = Dot::max_rows(F);
  for (int64_t row = 0; row < rows;) {
    const int64_t left = rows - row;
    // Two halves rather than a full and a thin one.
    const int64_t count = left <= kMax ? left : left < 2 * kMax ? (left + 1) / 2 : kMax;
    row_products<F, kMax>(m, tile, x, row, count, emit);
    row += count;
  }
}

// ---- gates ----

// min and max return their second operand where one is NaN: x stays NaN.
LFK_INLINE __m256 clamp(__m256 x, float limit) {
  return _mm256_min_ps(_mm256_set1_ps(limit), _mm256_max_ps(_mm256_set1_ps(-limit), x));
}

LFK_INLINE __m256 tanh_approx(__m256 x) {
  x = clamp(x, kTanhLimit);
  const __m256 z = _mm256_mul_ps(x, x);
  __m256 p = _mm256_set1_ps(kTanhP[4]), q = _mm256_set1_ps(kTanhQ[4]);
  for (int i = 3; i >= 0; --i) {
    p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(kTanhP[i]));
    q = _mm256_fmadd_ps(q, z, _mm256_set1_ps(kTanhQ[i]));
  }
  return clamp(_mm256_div_ps(_mm256_mul_ps(x, p), q), 1.0f);
}

LFK_INLINE __m256 sigmoid_approx(__m256 x) {
  const __m256 half = _mm256_set1_ps(0.5f);
  return _mm256_fmadd_ps(half, tanh_approx(_mm256_mul_ps(half, x)), half);
}

// ---- quantization ----

// Writes 8 rounded values. They are in [-A, A]; NaN becomes 0.
LFK_INLINE void store_quantized(__m256 scaled, Form form, uint8_t *q) {
  scaled = _mm256_and_ps(scaled, _mm256_cmp_ps(scaled, scaled, _CMP_ORD_Q));
  const __m256i wide = _mm256_cvtps_epi32(scaled);
  const __m128i shorts =
      _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  if (form == Form::signed16) {
    _mm_storeu_si128(reinterpret_cast<__m128i *>(q), shorts);
    return;
  }
  __m128i bytes = _mm_packs_epi16(shorts, shorts);
  if (form == Form::offset8)
    bytes = _mm_xor_si128(bytes, _mm_set1_epi8(-128));
  _mm_storel_epi64(reinterpret_cast<__m128i *>(q), bytes);
}

LFK_INLINE __m256i tail_mask(int64_t valid) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(valid < 8 ? valid : 8)), lane);
}

void quantize_row(const float *v, int64_t n, float floor, const Matrix &target, uint8_t *q,
                  float *scale) {
  // As integers, magnitudes order like the floats, with infinities and NaN on top.
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  __m256i most = _mm256_castps_si256(_mm256_set1_ps(floor));
  for (int64_t i = 0; i < n; i += 8) {
    const __m256 x = _mm256_maskload_ps(v + i, tail_mask(n - i));
    most = _mm256_max_epi32(most, _mm256_and_si256(_mm256_castps_si256(x), magnitude));
  }
  __m128i top = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
  top = _mm_max_epi32(top, _mm_shuffle_epi32(top, 0x4e));
  top = _mm_max_epi32(top, _mm_shuffle_epi32(top, 0xb1));
  const float m = _mm_cvtss_f32(_mm_castsi128_ps(top));
  const bool finite = _mm_cvtsi128_si32(top) < 0x7f800000;

  const float max = static_cast<float>(target.activation_max);
  const bool zero = !finite || m < kSmallestMagnitude;
  *scale = zero ? 0.0f : m / max;
  if (!finite)
    *scale = __builtin_nanf("");
  const __m256 factor = _mm256_set1_ps(zero ? 0.0f : max / m);
  for (int64_t i = 0; i < n; i += 8) {
    __m256 x = _mm256_maskload_ps(v + i, tail_mask(n - i));
    if (!finite)
      x = _mm256_setzero_ps();
    const __m256 scaled = clamp(_mm256_mul_ps(x, factor), max);
    store_quantized(scaled, target.form, q + i * activation_bytes(target.form));
  }
}

// ---- the table's functions, each for a matrix's form ----

template <Form F>
void input_products_of(const Matrix &m, const uint8_t *bias, int64_t rows, const ActivationRows &x,
                       float *out) {
  for (int64_t tile = 0; tile < m.num_tiles; ++tile)
    products<F>(m, tile, x, rows, [&](int64_t row, int g, __m256 sums) LFK_ALWAYS_INLINE {
      const int64_t i = tile * kTileRows + g * 8;
      const __m256 scale = scales_of(m, i, x.scales[row]);
      _mm256_storeu_ps(out + row * m.num_tiles * kTileRows + i,
                       _mm256_fmadd_ps(sums, scale, load_floats(bias, i)));
    });
}

// Gates, c, h and the quantized h of 8 units of one row.
LFK_INLINE void update_units(const StepArguments &a, const float *gates, int64_t row, int64_t tile,
                             int64_t num_tiles) {
  float *c_at = a.c + (row * num_tiles + tile) * kTileUnits;
  const __m256 i = sigmoid_approx(_mm256_loadu_ps(gates));
  const __m256 f = sigmoid_approx(_mm256_loadu_ps(gates + 8));
  const __m256 g = tanh_approx(_mm256_loadu_ps(gates + 16));
  const __m256 o = sigmoid_approx(_mm256_loadu_ps(gates + 24));
  const __m256 c = _mm256_fmadd_ps(f, _mm256_loadu_ps(c_at), _mm256_mul_ps(i, g));
  const __m256 h = _mm256_mul_ps(o, tanh_approx(c));
  _mm256_storeu_ps(c_at, c);
  _mm256_storeu_ps(a.h + (row * num_tiles + tile) * kTileUnits, h);
  if (_mm256_movemask_ps(_mm256_cmp_ps(h, h, _CMP_UNORD_Q)))
    a.h_out.scales[row] = __builtin_nanf("");
  const __m256 scaled = _mm256_mul_ps(h, _mm256_set1_ps(static_cast<float>(a.h_out_max)));
  store_quantized(scaled, a.h_out_form,
                  a.h_out.data + row * a.h_out.stride +
                      tile * kTileUnits * activation_bytes(a.h_out_form));
}

template <Form F> void step_of(const Matrix &m, const StepArguments &a) {
  alignas(32) float gates[kBlock][kTileRows];
  for (int64_t row = 0; row < a.rows; ++row)
    a.h_out.scales[row] = 1.0f / static_cast<float>(a.h_out_max);
  const int64_t tiles_a_block = a.rows < kBlock ? kBlock / (a.rows ? a.rows : 1) : 1;
  for (int64_t tile = 0; tile < m.num_tiles; tile += tiles_a_block) {
    const int64_t left = m.num_tiles - tile;
    const int64_t tiles = left < tiles_a_block ? left : tiles_a_block;
    for (int64_t row = 0; row < a.rows; row += kBlock) {
      const int64_t rows = a.rows - row < kBlock ? a.rows - row : kBlock;
      for (int64_t t = 0; t < tiles; ++t)
        products<F>(m, tile + t, a.h_in.from(row), rows,
                    [&](int64_t r, int g, __m256 sums) LFK_ALWAYS_INLINE {
                      const int64_t i = (tile + t) * kTileRows + g * 8;
                      const __m256 scale = scales_of(m, i, a.h_in.scales[row + r]);
                      const float *in = a.input_gates + (row + r) * m.num_tiles * kTileRows + i;
                      _mm256_store_ps(gates[t * rows + r] + g * 8,
                                      _mm256_fmadd_ps(sums, scale, _mm256_loadu_ps(in)));
                    });
      for (int64_t t = 0; t < tiles; ++t)
        for (int64_t r = 0; r < rows; ++r)
          update_units(a, gates[t * rows + r], row + r, tile + t, m.num_tiles);
    }
  }
}

template <Form F>
void project_of(const Matrix &m, int64_t rows, const ActivationRows &h, float *out) {
  for (int64_t tile = 0; tile < m.num_tiles; ++tile)
    products<F>(m, tile, h, rows, [&](int64_t row, int g, __m256 sums) LFK_ALWAYS_INLINE {
      const int64_t i = tile * kTileRows + g * 8;
      const __m256 scale = scales_of(m, i, h.scales[row]);
      _mm256_storeu_ps(out + row * m.num_tiles * kTileRows + i, _mm256_mul_ps(sums, scale));
    });
}

// Calls run with the form as a compile-time constant.
template <class Run> LFK_INLINE void for_form(Form form, const Run &run) {
  switch (form) {
  case Form::offset8:
    return run(std::integral_constant<Form, Form::offset8>());
  case Form::signed8:
    return run(std::integral_constant<Form, Form::signed8>());
  case Form::signed16:
    return run(std::integral_constant<Form, Form::signed16>());
  }
}

void input_products(const Matrix &ih, const uint8_t *bias, int64_t rows, const ActivationRows &x,
                    float *out) {
  for_form(ih.form, [&](auto form) { input_products_of<form>(ih, bias, rows, x, out); });
}

void step(const Matrix &hh, const StepArguments &arguments) {
  for_form(hh.form, [&](auto form) { step_of<form>(hh, arguments); });
}

void project(const Matrix &hr, int64_t rows, const ActivationRows &h, float *out) {
  for_form(hr.form, [&](auto form) { project_of<form>(hr, rows, h, out); });
}

} // namespace
} // namespace lstm_fastkernels
