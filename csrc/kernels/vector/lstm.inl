// The LSTM kernels: gates, quantization and the table's functions, 8 values at a time. Included
// inside a target region, after products.inl; everything here has internal linkage.

namespace lstm_fastkernels {
namespace LFK_ISA {
namespace {

// A step's products go to a small buffer. From there c is computed for all of it, and then h: in
// passes with one tanh on the way, the long latencies overlap from (tile, row) pair to pair. Pairs
// at a time:
constexpr int kDensePairs = 12;
constexpr int kSparsePairs = 8 * kWindowTiles;

// ---- gates ----

// NaN stays NaN: x is the second operand.
LFK_INLINE Floats clamp(Floats x, float limit) { return min(splat(limit), max(splat(-limit), x)); }

LFK_INLINE Floats tanh_approx(Floats x) {
  x = clamp(x, kTanhLimit);
  const Floats z = x * x;
  Floats p = splat(kTanhP[4]), q = splat(kTanhQ[4]);
  for (int i = 3; i >= 0; --i) {
    p = fma(p, z, splat(kTanhP[i]));
    q = fma(q, z, splat(kTanhQ[i]));
  }
  return clamp(x * p / q, 1.0f);
}

LFK_INLINE Floats sigmoid_approx(Floats x) {
  const Floats half = splat(0.5f);
  return fma(half, tanh_approx(half * x), half);
}

// ---- quantization ----

// Calls visit(8 values, zeros past the end, and where they are) for all of a row.
template <class Visit> LFK_INLINE void for_each_8(const float *v, int64_t n, const Visit &visit) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    visit(load(v + i), i);
  if (i < n)
    visit(load_first(v + i, static_cast<int>(n - i)), i);
}

// Zeros behind the last activation, and what the offset of 4-bit weights adds to their groups.
void end_int4_row(int64_t n, const Matrix &target, uint8_t *q) {
  const int64_t padded = padded_columns(Arithmetic::int4, n);
  std::memset(q + n, 0, static_cast<size_t>(padded - n));
  uint8_t *to = q + padded;
  for (int64_t first = 0; first < padded; first += target.scale_columns, to += sizeof(int32_t)) {
    const int64_t left = padded - first;
    const int32_t offset =
        kInt4Zero * sum_of_bytes(q + first, left < target.scale_columns ? left : target.scale_columns);
    std::memcpy(to, &offset, sizeof offset);
  }
}

void quantize_row(const float *v, int64_t n, RowKind kind, const Matrix &target,
                  const ActivationRows &row) {
  // x * 0 is NaN where x is not finite: lo and hi mean nothing then.
  Floats lo = splat(0.0f), hi = lo, zero = lo;
  for_each_8(v, n, [&](Floats x, int64_t) LFK_ALWAYS_INLINE {
    lo = min(x, lo);
    hi = max(x, hi);
    zero = fma(x, splat(0.0f), zero);
  });
  const bool finite = !has_nan(zero);
  const Arithmetic arithmetic = target.arithmetic;
  const bool is_float = arithmetic == Arithmetic::float32;
  const float highest = -least_of(splat(0.0f) - hi);
  const RowQuantizer to = quantizer(least_of(lo), highest, finite, kind,
                                    has_zero_points(arithmetic), target.activation_max);
  *row.scales = is_float && finite ? 1.0f : to.scale;
  *row.zero_points = to.zero_point;
  const int bytes = activation_bytes(arithmetic);
  if (!finite) {
    std::memset(row.data, 0, static_cast<size_t>(activation_row_bytes(target, n)));
  } else if (is_float) {
    for_each_8(v, n, [&](Floats x, int64_t i) LFK_ALWAYS_INLINE {
      store(reinterpret_cast<float *>(row.data) + i, x);
    });
  } else {
    const Floats inverse = splat(to.inverse), grid = splat(to.grid);
    const Integers zero_point = splat(to.zero_point);
    const auto write = [&](const auto &u_of) LFK_ALWAYS_INLINE {
      for_each_8(v, n, [&](Floats x, int64_t i) LFK_ALWAYS_INLINE {
        const Integers q = rounded_to_integers(u_of(x) * inverse);
        store_integers(add(q, zero_point), bytes, row.data + i * bytes);
      });
    };
    if (to.grid == 0.0f)
      write([](Floats x) LFK_ALWAYS_INLINE { return x; });
    else
      write([&](Floats x) LFK_ALWAYS_INLINE { return rounded(x * grid); });
  }
  if (arithmetic == Arithmetic::int4)
    end_int4_row(n, target, row.data);
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
  const Floats i = sigmoid_approx(load(u.gates));
  const Floats f = sigmoid_approx(load(u.gates + 8));
  const Floats g = tanh_approx(load(u.gates + 16));
  store(u.gates + 24, sigmoid_approx(load(u.gates + 24)));
  store(c, fma(f, load(c), i * g));
}

// h = o tanh(c).
LFK_INLINE void update_h(const StepArguments &a, const Units &u) {
  store(a.h + u.at(), load(u.gates + 24) * tanh_approx(load(a.c + u.at())));
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
