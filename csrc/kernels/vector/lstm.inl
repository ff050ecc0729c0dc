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

LFK_INLINE __m256i tail_mask(int64_t valid) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(valid < 8 ? valid : 8)), lane);
}

// Calls visit(8 values, zeros past the end, and where they are) for all of a row.
template <class Visit> LFK_INLINE void for_each_8(const float *v, int64_t n, const Visit &visit) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    visit(_mm256_loadu_ps(v + i), i);
  if (i < n)
    visit(_mm256_maskload_ps(v + i, tail_mask(n - i)), i);
}

LFK_INLINE float least_of(__m256 v) {
  __m128 least = _mm_min_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  least = _mm_min_ps(least, _mm_movehl_ps(least, least));
  return _mm_cvtss_f32(_mm_min_ss(least, _mm_movehdup_ps(least)));
}

// Two bytes for each of 8 integers, or one, clamped to 0..255.
LFK_INLINE void store_integers(__m256i q, int bytes, uint8_t *to) {
  const __m128i shorts = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
  if (bytes == 2)
    _mm_storeu_si128(reinterpret_cast<__m128i *>(to), shorts);
  else
    _mm_storel_epi64(reinterpret_cast<__m128i *>(to), _mm_packus_epi16(shorts, shorts));
}

void quantize_row(const float *v, int64_t n, RowKind kind, const Matrix &target,
                  const ActivationRows &row) {
  // NaN leaves lo and hi as they are; x * 0 is NaN where x is not finite.
  __m256 lo = _mm256_setzero_ps(), hi = lo, zero = lo;
  for_each_8(v, n, [&](__m256 x, int64_t) LFK_ALWAYS_INLINE {
    lo = _mm256_min_ps(x, lo);
    hi = _mm256_max_ps(x, hi);
    zero = _mm256_fmadd_ps(x, _mm256_setzero_ps(), zero);
  });
  const bool finite = _mm256_movemask_ps(_mm256_cmp_ps(zero, zero, _CMP_UNORD_Q)) == 0;
  const Arithmetic arithmetic = target.arithmetic;
  const bool is_float = arithmetic == Arithmetic::float32;
  const float highest = -least_of(_mm256_sub_ps(_mm256_setzero_ps(), hi));
  const RowQuantizer to = quantizer(least_of(lo), highest, finite, kind,
                                    has_zero_points(arithmetic), target.activation_max);
  *row.scales = is_float && finite ? 1.0f : to.scale;
  *row.zero_points = to.zero_point;
  const int bytes = activation_bytes(arithmetic);
  if (!finite) {
    std::memset(row.data, 0, static_cast<size_t>(activation_row_bytes(arithmetic, n)));
  } else if (is_float) {
    for_each_8(v, n, [&](__m256 x, int64_t i) LFK_ALWAYS_INLINE {
      _mm256_storeu_ps(reinterpret_cast<float *>(row.data) + i, x);
    });
  } else {
    const __m256 inverse = _mm256_set1_ps(to.inverse), grid = _mm256_set1_ps(to.grid);
    const __m256i zero_point = _mm256_set1_epi32(to.zero_point);
    const auto write = [&](const auto &u_of) LFK_ALWAYS_INLINE {
      for_each_8(v, n, [&](__m256 x, int64_t i) LFK_ALWAYS_INLINE {
        const __m256i q = _mm256_cvtps_epi32(_mm256_mul_ps(u_of(x), inverse));
        store_integers(_mm256_add_epi32(q, zero_point), bytes, row.data + i * bytes);
      });
    };
    if (to.grid == 0.0f)
      write([](__m256 x) LFK_ALWAYS_INLINE { return x; });
    else
      write([&](__m256 x) LFK_ALWAYS_INLINE {
        return _mm256_round_ps(_mm256_mul_ps(x, grid),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      });
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
             {m.scales + i * 4, bias ? bias + i * 4 : none, 0, out + i, width});
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

// h = o tanh(c).
LFK_INLINE void update_h(const StepArguments &a, const Units &u) {
  const __m256 c = _mm256_loadu_ps(a.c + u.at());
  _mm256_storeu_ps(a.h + u.at(), _mm256_mul_ps(_mm256_load_ps(u.gates + 24), tanh_approx(c)));
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
      multiply(m, tile, tiles, a.h_in.from(row), rows,
               {m.scales + tile * kTileRows * 4, reinterpret_cast<const uint8_t *>(in), width,
                gates, tiles * kTileRows});
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
