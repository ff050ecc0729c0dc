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

using Wide = decltype(Dot::splat_values(0.0f));
template <class V> constexpr int kUnits = sizeof(V) / sizeof(Floats);

template <class V> LFK_INLINE V splat_as(float value) {
  if constexpr (kUnits<V> == 1)
    return splat(value);
  else
    return Dot::splat_values(value);
}

// 8 floats at address(0) and, where V has 16, 8 at address(1).
template <class V, class Address> LFK_INLINE V load_from(const Address &address) {
  if constexpr (kUnits<V> == 1)
    return load(address(0));
  else
    return Dot::join(load(address(0)), load(address(1)));
}
template <class V, class Address> LFK_INLINE void store_to(V x, const Address &address) {
  if constexpr (kUnits<V> == 1) {
    store(address(0), x);
  } else {
    store(address(0), Dot::gate_values(x, 0));
    store(address(1), Dot::gate_values(x, 1));
  }
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

// Of 8 units of one row: their gates i, f, g, o, and where c and h are.
struct Units {
  float *gates, *c, *h;
};

// The new c of as many Units as V has room for. o takes the place of its gate.
template <class V> LFK_INLINE void update_c(const Units *units) {
  const auto gate = [&](int i) LFK_ALWAYS_INLINE {
    return load_from<V>([&](int n) LFK_ALWAYS_INLINE { return units[n].gates + i * kTileUnits; });
  };
  const V i = sigmoid_approx(gate(0)), f = sigmoid_approx(gate(1)), g = tanh_approx(gate(2));
  const auto c = [&](int n) LFK_ALWAYS_INLINE { return units[n].c; };
  store_to(sigmoid_approx(gate(3)),
           [&](int n) LFK_ALWAYS_INLINE { return units[n].gates + 3 * kTileUnits; });
  store_to(fma(f, load_from<V>(c), i * g), c);
}

// h = o tanh(c).
template <class V> LFK_INLINE void update_h(const Units *units) {
  const V o =
      load_from<V>([&](int n) LFK_ALWAYS_INLINE { return units[n].gates + 3 * kTileUnits; });
  const V c = load_from<V>([&](int n) LFK_ALWAYS_INLINE { return units[n].c; });
  store_to(o * tanh_approx(c), [&](int n) LFK_ALWAYS_INLINE { return units[n].h; });
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
        kInt4Zero *
        sum_of_bytes(q + first, left < target.scale_columns ? left : target.scale_columns);
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
      write([&](Floats x) LFK_ALWAYS_INLINE { return x; });
    else
      write([&](Floats x) LFK_ALWAYS_INLINE { return rounded(x * grid); });
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
              const ActivationRows &x, float *out) {
  const uint8_t *const none = reinterpret_cast<const uint8_t *>(kNoBias.values);
  const int64_t width = m.num_tiles * kTileRows;
  for (int64_t tile = range.begin; tile < range.end; tile += kWindowTiles) {
    const int64_t i = tile * kTileRows, left = range.end - tile;
    multiply(m, tile, left < kWindowTiles ? left : kWindowTiles, x, rows,
             {m.scales + i * 4, bias ? bias + i * 4 : none, 0, out + i, width});
  }
}

void look_up(const Matrix &table, int64_t id, const uint8_t *bias, float *gates) {
  const int64_t rows = table.num_tiles * kTileRows, bytes = weight_bytes(table.arithmetic);
  const uint8_t *const column = table.tiles + id * rows * bytes;
  const auto add_bias = [&](const auto &load_8) LFK_ALWAYS_INLINE {
    for (int64_t i = 0; i < rows; i += 8)
      store(gates + i, load_8(column + i * bytes) + load_floats(bias + i * 4));
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
      Units units[kSparsePairs];
      int count = 0;
      for (int64_t r = row; r < row + rows; ++r)
        for (int64_t t = tile; t < tile + tiles; ++t, ++count) {
          const int64_t at = (r * m.num_tiles + t) * kTileUnits;
          units[count] = {gates + count * kTileRows, a.c + at, a.h + at};
        }
      constexpr int kTogether = sizeof(Wide) / sizeof(Floats);
      const int last = count / kTogether * kTogether;
      for (int i = 0; i < last; i += kTogether)
        update_c<Wide>(units + i);
      for (int i = last; i < count; ++i)
        update_c<Floats>(units + i);
      for (int i = 0; i < last; i += kTogether)
        update_h<Wide>(units + i);
      for (int i = last; i < count; ++i)
        update_h<Floats>(units + i);
    }
  }
}

} // namespace
} // namespace LFK_ISA
} // namespace lstm_fastkernels
