// The LSTM kernels: gates, quantization and the table's functions. Included inside a target region,
// after products.inl; everything here has internal linkage.
//
// Gates are computed in Dot's Values: Floats, or twice as many, which Dot::join makes of two.

namespace lstm_fastkernels {
namespace LFK_ISA {
namespace {

// A step's products go to a small buffer. From there c is computed for all of it, and then h: in
// passes with one tanh on the way, the long latencies overlap from (tile, row) pair to pair. Of a
// dense matrix Dot::kDensePairs are taken at a time, and at least Dot::kLeastTiles; of a sparse
// one:
constexpr int kSparsePairs = 8 * kWindowTiles;

// ---- gates ----

template <class V> LFK_INLINE V load_from(const float *p) {
  return load_as<V>(reinterpret_cast<const uint8_t *>(p), 0);
}

// NaN stays NaN: x is the second operand.
template <class V> LFK_INLINE V clamp(V x, float limit) {
  return min(splat_as<V>(limit), max(splat_as<V>(-limit), x));
}

template <class V> LFK_INLINE V tanh_approx(V x) {
  x = clamp(x, kTanhLimit);
  const V z = x * x;
  V p = splat_as<V>(kTanhP[4]), q = splat_as<V>(kTanhQ[4]);
  for (int i = 3; i >= 0; --i) {
    p = fma(p, z, splat_as<V>(kTanhP[i]));
    q = fma(q, z, splat_as<V>(kTanhQ[i]));
  }
  return clamp(x * p / q, 1.0f);
}

template <class V> LFK_INLINE V sigmoid_approx(V x) {
  const V half = splat_as<V>(0.5f);
  return fma(half, tanh_approx(half * x), half);
}

// Of one row, the 8 units of a tile, or of two where V has room for them: their gates i, f, g, o, a
// tile's behind the other's, and where c and h are.
struct Units {
  float *gates, *c, *h;

  LFK_INLINE Units from(int64_t tile) const {
    return {gates + tile * kTileRows, c + tile * kTileUnits, h + tile * kTileUnits};
  }
  template <class V> LFK_INLINE V gate(int i) const {
    const float *const first = gates + i * kTileUnits;
    if constexpr (kTiles<V> == 1)
      return load(first);
    else
      return Dot::join(load(first), load(first + kTileRows));
  }
};

// The new c, to where it was. o takes the place of gates.
template <class V> LFK_INLINE void update_c(const Units &units) {
  const V i = sigmoid_approx(units.gate<V>(0)), f = sigmoid_approx(units.gate<V>(1));
  const V g = tanh_approx(units.gate<V>(2)), o = sigmoid_approx(units.gate<V>(3));
  store(units.gates, o);
  store(units.c, fma(f, load_from<V>(units.c), i * g));
}

// h = o tanh(c).
template <class V> LFK_INLINE void update_h(const Units &units) {
  store(units.h, load_from<V>(units.gates) * tanh_approx(load_from<V>(units.c)));
}

// ---- quantization ----

// Calls visit(values, where they are) for all of a row, as many at a time as a register holds, and
// zeros past the end.
template <class Visit>
LFK_INLINE void for_each_value(const float *v, int64_t n, const Visit &visit) {
  constexpr int64_t kWidth = sizeof(Wide) / sizeof(float);
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth)
    visit(load_from<Wide>(v + i), i);
  for (; i + 8 <= n; i += 8)
    visit(load(v + i), i);
  if (i < n)
    visit(load_first(v + i, static_cast<int>(n - i)), i);
}

// Zeros behind 8 values.
template <class V> LFK_INLINE Wide as_wide(V x) {
  if constexpr (sizeof(V) == sizeof(Wide))
    return x;
  else
    return Dot::join(x, splat(0.0f));
}

// Zeros behind the last activation, and what the offset of 4-bit weights adds to their groups.
void end_int4_row(int64_t n, const Matrix &target, uint8_t *q) {
  const int64_t padded = padded_columns(Arithmetic::int4, n);
  std::memset(q + n, 0, static_cast<size_t>(padded - n));
  uint8_t *to = q + padded;
  for (int64_t first = 0; first < padded; first += target.scale_columns, to += sizeof(int32_t)) {
    const int64_t left = padded - first;
    const int32_t offset =
        kInt4Zero *
        sum_of_bytes(q + first, left < target.scale_columns ? left : target.scale_columns);
    std::memcpy(to, &offset, sizeof offset);
  }
}

void quantize_row(const float *v, int64_t n, RowKind kind, const Matrix &target,
                  const ActivationRows &row) {
  // x * 0 is NaN where x is not finite: lo and hi mean nothing then.
  Wide lo = splat_as<Wide>(0.0f), hi = lo, zero = lo;
  for_each_value(v, n, [&](auto values, int64_t) LFK_ALWAYS_INLINE {
    const Wide x = as_wide(values);
    lo = min(x, lo);
    hi = max(x, hi);
    zero = fma(x, splat_as<Wide>(0.0f), zero);
  });
  const bool finite = !has_nan(zero);
  const Arithmetic arithmetic = target.arithmetic;
  const bool is_float = arithmetic == Arithmetic::float32;
  const float highest = -least_of(splat_as<Wide>(0.0f) - hi);
  const RowQuantizer to = quantizer(least_of(lo), highest, finite, kind,
                                    has_zero_points(arithmetic), target.activation_max);
  *row.scales = is_float && finite ? 1.0f : to.scale;
  *row.zero_points = to.zero_point;
  const int bytes = activation_bytes(arithmetic);
  if (!finite) {
    std::memset(row.data, 0, static_cast<size_t>(activation_row_bytes(target, n)));
  } else if (is_float) {
    for_each_value(v, n, [&](auto x, int64_t i) LFK_ALWAYS_INLINE {
      store(reinterpret_cast<float *>(row.data) + i, x);
    });
  } else {
    const auto write = [&](const auto &u_of) LFK_ALWAYS_INLINE {
      for_each_value(v, n, [&](auto x, int64_t i) LFK_ALWAYS_INLINE {
        const auto q = rounded_to_integers(u_of(x) * splat_as<decltype(x)>(to.inverse));
        store_integers(add(q, to.zero_point), bytes, row.data + i * bytes);
      });
    };
    if (to.grid == 0.0f)
      write([](auto x) LFK_ALWAYS_INLINE { return x; });
    else
      write([&](auto x) LFK_ALWAYS_INLINE { return rounded(x * splat_as<decltype(x)>(to.grid)); });
  }
  if (arithmetic == Arithmetic::int4)
    end_int4_row(n, target, row.data);
}

// ---- the table's functions ----

LFK_INLINE Floats load_floats(const uint8_t *p) { return load(reinterpret_cast<const float *>(p)); }

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
              const ActivationRows &x, TileRows<float> out) {
  const uint8_t *const none = reinterpret_cast<const uint8_t *>(kNoBias.values);
  for (int64_t tile = range.begin; tile < range.end; tile += kWindowTiles) {
    const int64_t i = tile * kTileRows, left = range.end - tile;
    multiply(m, tile, left < kWindowTiles ? left : kWindowTiles, x, rows,
             {m.scales + i * 4, bias ? bias + i * 4 : none, 0,
              out.first + (tile - range.begin) * kTileRows, out.stride});
  }
}

void look_up(const Matrix &table, TileRange range, int64_t id, const uint8_t *bias, float *gates) {
  const int64_t begin = range.begin * kTileRows, rows = range.end * kTileRows - begin;
  const int64_t bytes = weight_bytes(table.arithmetic);
  const uint8_t *const column = table.tiles + (id * table.num_tiles * kTileRows + begin) * bytes;
  const uint8_t *const biases = bias + begin * 4;
  const auto add_bias = [&](const auto &load_8) LFK_ALWAYS_INLINE {
    for (int64_t i = 0; i < rows; i += 8)
      store(gates + i, load_8(column + i * bytes) + load_floats(biases + i * 4));
  };
  if (table.arithmetic == Arithmetic::table16)
    add_bias([&](const uint8_t *p) LFK_ALWAYS_INLINE { return load_halves(p); });
  else
    add_bias([&](const uint8_t *p) LFK_ALWAYS_INLINE { return load_floats(p); });
}

void step(const Matrix &m, TileRange range, const StepArguments &a) {
  alignas(64) float gates[kSparsePairs * kTileRows];
  static_assert(Dot::kDensePairs <= kSparsePairs);
  const int64_t pairs = m.is_sparse() ? kSparsePairs : Dot::kDensePairs;
  const int64_t fitting = pairs / (a.rows ? a.rows : 1);
  const int64_t dense_tiles = fitting > Dot::kLeastTiles ? fitting : Dot::kLeastTiles;
  const int64_t most_tiles = m.is_sparse() ? kWindowTiles : dense_tiles;
  const int64_t most_rows = pairs / most_tiles;
  for (int64_t tile = range.begin; tile < range.end; tile += most_tiles) {
    const int64_t left = range.end - tile;
    const int64_t tiles = left < most_tiles ? left : most_tiles;
    for (int64_t row = 0; row < a.rows; row += most_rows) {
      const int64_t rows = a.rows - row < most_rows ? a.rows - row : most_rows;
      const float *in =
          a.input_gates.first + row * a.input_gates.stride + (tile - range.begin) * kTileRows;
      multiply(m, tile, tiles, a.h_in.from(row), rows,
               {m.scales + tile * kTileRows * 4, reinterpret_cast<const uint8_t *>(in),
                a.input_gates.stride, gates, tiles * kTileRows});
      const auto for_each = [&](const auto &visit_wide, const auto &visit) LFK_ALWAYS_INLINE {
        constexpr int64_t kTogether = sizeof(Wide) / sizeof(Floats);
        for (int64_t r = 0; r < rows; ++r) {
          const int64_t at = ((row + r) * m.num_tiles + tile) * kTileUnits;
          const Units all{gates + r * tiles * kTileRows, a.c + at, a.h + at};
          int64_t t = 0;
          for (; t + kTogether <= tiles; t += kTogether)
            visit_wide(all.from(t));
          for (; t < tiles; ++t)
            visit(all.from(t));
        }
      };
      for_each(update_c<Wide>, update_c<Floats>);
      for_each(update_h<Wide>, update_h<Floats>);
    }
  }
}

} // namespace
} // namespace LFK_ISA
} // namespace lstm_fastkernels
