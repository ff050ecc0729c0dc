// The LSTM kernels of x86: gates, quantization and the table's functions, on 256 bits everywhere.
// Included inside a target region, after products.inl; everything here has internal linkage.

namespace lstm_fastkernels {
namespace LFK_ISA {
namespace {

// A step's products go to a small buffer. From there c is computed for all of it, and then h: in
// passes with one tanh on the way, the long latencies overlap from (tile, row) pair to pair. Pairs
// at a time:
constexpr int kDensePairs = 12;
constexpr int kSparsePairs = 8 * kWindowTiles;

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

// Writes 8 values, rounded unless they are for float32. They are in [-A, A]; NaN becomes 0.
LFK_INLINE void store_quantized(__m256 scaled, Arithmetic arithmetic, uint8_t *q) {
  scaled = _mm256_and_ps(scaled, _mm256_cmp_ps(scaled, scaled, _CMP_ORD_Q));
  if (arithmetic == Arithmetic::float32)
    return _mm256_storeu_ps(reinterpret_cast<float *>(q), scaled);
  const __m256i wide = _mm256_cvtps_epi32(scaled);
  const __m128i shorts =
      _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  if (arithmetic == Arithmetic::signed16) {
    _mm_storeu_si128(reinterpret_cast<__m128i *>(q), shorts);
    return;
  }
  __m128i bytes = _mm_packs_epi16(shorts, shorts);
  if (arithmetic == Arithmetic::offset8)
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
  const bool is_float = target.arithmetic == Arithmetic::float32;
  const bool zero = !finite || m < kSmallestMagnitude;
  *scale = is_float ? 1.0f : zero ? 0.0f : m / max;
  if (!finite)
    *scale = __builtin_nanf("");
  const __m256 factor = _mm256_set1_ps(zero ? 0.0f : max / m);
  for (int64_t i = 0; i < n; i += 8) {
    __m256 x = _mm256_maskload_ps(v + i, tail_mask(n - i));
    if (!finite)
      x = _mm256_setzero_ps();
    if (!is_float)
      x = clamp(_mm256_mul_ps(x, factor), max);
    store_quantized(x, target.arithmetic, q + i * activation_bytes(target.arithmetic));
  }
}

// ---- the table's functions ----

// What to add where there is no bias: adding -0 changes nothing.
struct MinusZeros {
  float values[kWindowTiles * kTileRows];
  constexpr MinusZeros() : values() {
    for (float &value : values)
      value = -0.0f;
  }
};
constexpr MinusZeros kNoBias;

void products(const Matrix &m, TileRange range, const uint8_t *bias, int64_t rows,
              const ActivationRows &x, float *out) {
  const uint8_t *const none = reinterpret_cast<const uint8_t *>(kNoBias.values);
  const int64_t width = m.num_tiles * kTileRows;
  for (int64_t tile = range.begin; tile < range.end; tile += kWindowTiles) {
    const int64_t i = tile * kTileRows, left = range.end - tile;
    multiply(m, tile, left < kWindowTiles ? left : kWindowTiles, x, rows,
             {x.scales, m.scales + i * 4, bias ? bias + i * 4 : none, 0, out + i, width});
  }
}

// A step's 8 units of one row: their gates i, f, g, o, and where they are in the arguments.
struct Units {
  float *gates;
  int64_t row, unit, units_a_row;

  LFK_INLINE int64_t at() const { return row * units_a_row + unit; }
};

// The new c. o takes the place of its gate.
LFK_INLINE void update_c(const StepArguments &a, const Units &u) {
  float *c = a.c + u.at();
  const __m256 i = sigmoid_approx(_mm256_load_ps(u.gates));
  const __m256 f = sigmoid_approx(_mm256_load_ps(u.gates + 8));
  const __m256 g = tanh_approx(_mm256_load_ps(u.gates + 16));
  _mm256_store_ps(u.gates + 24, sigmoid_approx(_mm256_load_ps(u.gates + 24)));
  _mm256_storeu_ps(c, _mm256_fmadd_ps(f, _mm256_loadu_ps(c), _mm256_mul_ps(i, g)));
}

// h and the quantized h.
LFK_INLINE void update_h(const StepArguments &a, const Units &u) {
  const __m256 c = _mm256_loadu_ps(a.c + u.at());
  const __m256 h = _mm256_mul_ps(_mm256_load_ps(u.gates + 24), tanh_approx(c));
  _mm256_storeu_ps(a.h + u.at(), h);
  if (_mm256_movemask_ps(_mm256_cmp_ps(h, h, _CMP_UNORD_Q)))
    a.h_out.scales[u.row] = __builtin_nanf("");
  const __m256 scaled = _mm256_mul_ps(h, _mm256_set1_ps(static_cast<float>(a.h_out_max)));
  store_quantized(scaled, a.h_out_arithmetic,
                  a.h_out.data + u.row * a.h_out.stride +
                      u.unit * activation_bytes(a.h_out_arithmetic));
}

void step(const Matrix &m, TileRange range, const StepArguments &a) {
  alignas(64) float gates[kSparsePairs * kTileRows];
  const int64_t pairs = m.is_sparse() ? kSparsePairs : kDensePairs;
  const int64_t dense_tiles = a.rows < pairs ? pairs / (a.rows ? a.rows : 1) : 1;
  const int64_t most_tiles = m.is_sparse() ? kWindowTiles : dense_tiles;
  const int64_t most_rows = pairs / most_tiles;
  const int64_t width = m.num_tiles * kTileRows;
  for (int64_t tile = range.begin; tile < range.end; tile += most_tiles) {
    const int64_t left = range.end - tile;
    const int64_t tiles = left < most_tiles ? left : most_tiles;
    for (int64_t row = 0; row < a.rows; row += most_rows) {
      const int64_t rows = a.rows - row < most_rows ? a.rows - row : most_rows;
      const float *in = a.input_gates + row * width + tile * kTileRows;
      const ActivationRows h_in = a.h_in.from(row);
      multiply(m, tile, tiles, h_in, rows,
               {h_in.scales, m.scales + tile * kTileRows * 4, reinterpret_cast<const uint8_t *>(in),
                width, gates, tiles * kTileRows});
      const auto for_each_units = [&](const auto &update) LFK_ALWAYS_INLINE {
        float *at = gates;
        for (int64_t r = row; r < row + rows; ++r)
          for (int64_t t = tile; t < tile + tiles; ++t, at += kTileRows)
            update(a, Units{at, r, t * kTileUnits, m.num_tiles * kTileUnits});
      };
      for_each_units(update_c);
      for_each_units(update_h);
    }
  }
}

} // namespace
} // namespace LFK_ISA
} // namespace lstm_fastkernels
