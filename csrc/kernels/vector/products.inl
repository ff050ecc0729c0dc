// Products of weights and activation rows, dense and block-sparse, over what the including file
// brings for its instruction set. Included inside a target region; everything here has internal
// linkage.
//
// Floats and Integers are 8 of each, with *, / and - of floats and these functions (registers.inl):
//   splat, load, store; load_first(address, count) of less than 8, zeros behind them
//   fma; min, max: NaN where the second operand is NaN
//   rounded, rounded_to_integers: ties to even; to_floats; as_floats(bits)
//   add(integers, integer); least_of; has_nan
//   sum_of_bytes(address, count): of unsigned bytes, a multiple of 32
//   store_integers(integers, bytes, address): as int16, or in one byte clamped to 0..255
//
// Dot and StripDot are the policies of tiles and of strips. Both give:
//   Sums<arithmetic>, which {} sets to zero, of 8 x kGates rows; values<arithmetic>(sums): floats
//   max_rows<arithmetic>(): the rows that share one pass over the weights
//   chains<arithmetic, rows>(), of who multiplies dense tiles: sums that every group of columns
//     takes in turn, so that none waits for the one before; plus(sums, sums) where it is more than
//     1, for integers alone
//   add<arithmetic>(sums, activations<arithmetic>(4 bytes), weights<arithmetic>(address))
//   row_sums(matrix, first row); times(row sums, integer): what sums can start at
//   kOffset: what is taken from activations that have zero points before they are multiplied
// Those of Dot are Values: Floats, or twice as many, with *, /, -, fma, min, max, store and what
//   quantizes, from rounded on; load_values(address), splat_values(float); join(floats, floats):
//   the first alone where Values are Floats
// For 4-bit weights Dot gives
//   Int4Sums of 8 x kGates rows, which to_floats takes to Values
//   int4_sums<R>(weights of 32 rows, activations, bytes from row to row of them, groups of 4
//     columns, an offset for each row, sums): the exact sums of weights as they are stored, which
//     are 8 larger, less the offsets
// Dot::kDensePairs and Dot::kLeastTiles: what a step multiplies at a time (lstm.inl).
// Dot::kPairs8 is how pair-safe weights are multiplied. Dot::kNarrowBytes: 8-bit weights of a dense
// matrix that the second cache does not hold go to StripDot for one row of activations.
// StripDot::strips<arithmetic>() of one row run side by side; StripDot::kPaired: several rows go by
// pairs (x86/paired.inl).

namespace lstm_fastkernels {
namespace LFK_ISA {
namespace {

LFK_INLINE Floats load_floats(const uint8_t *array, int64_t i) {
  return load(reinterpret_cast<const float *>(array + i * 4));
}

// ---- floats, or twice as many ----

using Wide = decltype(Dot::splat_values(0.0f));
template <class V> constexpr int kTiles = sizeof(V) / sizeof(Floats); // whose units V holds

template <class V> LFK_INLINE V splat_as(float value) {
  if constexpr (kTiles<V> == 1)
    return splat(value);
  else
    return Dot::splat_values(value);
}

template <class V> LFK_INLINE V load_as(const uint8_t *floats, int64_t i) {
  if constexpr (kTiles<V> == 1)
    return load_floats(floats, i);
  else
    return Dot::load_values(floats + i * 4);
}

// Where sums go: out[row][i] = fma(sum, scale of the row * scale i, addend[row][i]). Elements are
// those of a range of tiles, the first one's first element is 0.
struct Target {
  const uint8_t *scales;
  const uint8_t *addend; // floats
  int64_t addend_stride; // elements from row to row; 0: one for all rows
  float *out;
  int64_t out_stride;
};

// R rows of activations from `row` on, and of a target.
template <Arithmetic F, int R> struct Rows {
  const uint8_t *q;
  int64_t stride;
  uint8_t *scratch;
  int32_t zero_points[R];
  const uint8_t *scales;
  float row_scales[R];
  const uint8_t *addends[R];
  float *outs[R];

  LFK_INLINE Rows(const ActivationRows &x, const Target &target, int64_t row)
      : q(x.data + row * x.stride), stride(x.stride), scratch(x.scratch), scales(target.scales) {
    LFK_UNROLLED (r, R) {
      zero_points[r] = x.zero_points[row + r];
      row_scales[r] = x.scales[row + r];
      addends[r] = target.addend + (row + r) * target.addend_stride * 4;
      outs[r] = target.out + (row + r) * target.out_stride;
    }
  }

  // Where the sums of row r of the activations start, for rows of the matrix from `row` on: a zero
  // point adds itself times the sum of a row's weights.
  template <class D, class Sums = typename D::template Sums<F>>
  LFK_INLINE Sums first_sums(const Matrix &m, int r, int64_t row) const {
    if constexpr (has_zero_points(F))
      return D::times(D::row_sums(m, row), D::kOffset - zero_points[r]);
    return Sums{};
  }

  // Sums as floats, the first of which is element i.
  template <class V> LFK_INLINE void put(int r, int64_t i, V sums) const {
    put_scaled(r, i, sums, splat_as<V>(row_scales[r]) * load_as<V>(scales, i));
  }
  // With the matrix's scales in them.
  template <class V> LFK_INLINE void put_values(int r, int64_t i, V values) const {
    put_scaled(r, i, values, splat_as<V>(row_scales[r]));
  }

private:
  template <class V> LFK_INLINE void put_scaled(int r, int64_t i, V values, V scale) const {
    store(outs[r] + i, fma(values, scale, load_as<V>(addends[r], i)));
  }
};

// ---- dense: 32 rows of weights and R rows of activations at a time ----

// Named by way of a parameter: not every Dot has it.
template <class D, class Sums> LFK_INLINE Sums plus(Sums a, Sums b) { return D::plus(a, b); }

// The tile's first element in the target is `at`.
template <class D, Arithmetic F, int R>
LFK_INLINE void tile_products(const Matrix &m, int64_t tile, const Rows<F, R> &rows, int64_t at) {
  constexpr int kRegisters = 4 / D::kGates;
  constexpr int kChains = D::template chains<F, R>();
  typename D::template Sums<F> sums[kChains][R][kRegisters]{};
  LFK_UNROLLED (i, kRegisters) {
    LFK_UNROLLED (r, R)
      sums[0][r][i] = rows.template first_sums<D>(m, r, (tile * 4 + i * D::kGates) * kStripRows);
  }
  constexpr int kRegisterBytes = D::kGates * kStripRows * group_bytes(F);
  const uint8_t *w = m.tiles + tile * m.tile_bytes();
  const uint8_t *q = rows.q, *const end = q + m.groups * 4;
  const auto add_group = [&](auto &to) LFK_ALWAYS_INLINE {
    decltype(D::template activations<F>(0)) a[R];
    LFK_UNROLLED (r, R)
      a[r] = D::template activations<F>(read<int32_t>(q + r * rows.stride, 0));
    LFK_UNROLLED (i, kRegisters) {
      const auto weights = D::template weights<F>(w + i * kRegisterBytes);
      LFK_UNROLLED (r, R)
        to[r][i] = D::template add<F>(to[r][i], a[r], weights);
    }
    q += 4;
    w += kRegisters * kRegisterBytes;
  };
  if constexpr (kChains > 1) {
    for (const uint8_t *const last = end - (kChains - 1) * 4; q < last;)
      LFK_UNROLLED (chain, kChains)
        add_group(sums[chain]);
  }
#pragma GCC unroll 2
  while (q != end)
    add_group(sums[0]);
  LFK_UNROLLED (r, R) {
    LFK_UNROLLED (i, kRegisters) {
      auto &sum = sums[0][r][i];
      if constexpr (kChains > 1) {
        LFK_UNROLLED (chain, kChains - 1)
          sum = plus<D>(sum, sums[chain + 1][r][i]);
      }
      rows.put(r, at + i * D::kGates * kStripRows, D::template values<F>(sum));
    }
  }
}

template <Arithmetic F> struct DenseMatrix {
  static constexpr Arithmetic kArithmetic = F;
  static constexpr int kMaxRows = Dot::max_rows<F>();

  template <int R>
  static LFK_INLINE void run(const Matrix &m, int64_t first, int64_t tiles,
                             const Rows<F, R> &rows) {
    // Weights from beyond L2 come quicker to StripDot's registers of 256 bits.
    if constexpr (R == 1 && Dot::kNarrowBytes && has_zero_points(F)) {
      if (m.num_tiles * m.groups * kTileRows * group_bytes(F) > kBytesOfL2)
        return run<StripDot>(m, first, tiles, rows);
    }
    run<Dot>(m, first, tiles, rows);
  }

private:
  template <class D, int R>
  static LFK_INLINE void run(const Matrix &m, int64_t first, int64_t tiles,
                             const Rows<F, R> &rows) {
    for (int64_t t = 0; t < tiles; ++t)
      tile_products<D, F, R>(m, first + t, rows, t * kTileRows);
  }
};

// ---- block-sparse: the blocks of L strips of a slice and R rows of activations at a time ----

// Strips `first`.. of a slice; the window's first row is the target's first element.
template <Arithmetic F, int L, int R>
LFK_INLINE void strip_products(const Matrix &m, const Slice &slice, int first, int64_t window_row,
                               const Rows<F, R> &rows) {
  constexpr int kGroups = kBlockColumns / columns_per_group(F);
  constexpr int kGroupBytes = block_bytes(F) / kGroups;
  StripDot::Sums<F> sums[L][R];
  LFK_UNROLLED (l, L) {
    LFK_UNROLLED (r, R)
      sums[l][r] = rows.template first_sums<StripDot>(
          m, r, window_row + slice.strips[first + l] * kStripRows);
  }
  const int64_t slot = int64_t{slice.start} * kSliceStrips + first;
  const uint8_t *column = m.columns + slot * 2;
  const uint8_t *w = m.blocks + slot * block_bytes(F);
  for (uint32_t n = slice.length; n > 0; --n) {
    LFK_UNROLLED (l, L) {
      const uint8_t *q = rows.q + int64_t{read<uint16_t>(column, l)} * (kGroups * 4);
      LFK_UNROLLED (g, kGroups) {
        const auto weights = StripDot::weights<F>(w + l * block_bytes(F) + g * kGroupBytes);
        LFK_UNROLLED (r, R) {
          const auto a = StripDot::activations<F>(read<int32_t>(q + r * rows.stride, g));
          sums[l][r] = StripDot::add<F>(sums[l][r], a, weights);
        }
      }
    }
    column += kSliceStrips * 2;
    w += kSliceStrips * block_bytes(F);
  }
  LFK_UNROLLED (l, L) {
    LFK_UNROLLED (r, R)
      rows.put(r, slice.strips[first + l] * kStripRows, StripDot::values<F>(sums[l][r]));
  }
}

// Calls visit(slice, strip) for every L-th strip of the slices of a window's tiles; the first tile
// is the first of its window, and at most that window is asked for.
template <int L, class Visit>
LFK_INLINE void for_each_slice(const Matrix &m, int64_t first, int64_t tiles, const Visit &visit) {
  const int64_t slice = first * kStripsPerTile / kSliceStrips;
  const int64_t slices = divide_up(tiles * kStripsPerTile, kSliceStrips);
  for (int64_t i = slice; i < slice + slices; ++i) {
    const Slice taken = read<Slice>(m.slices, i);
    for (int strip = 0; strip < kSliceStrips; strip += L)
      visit(taken, strip);
  }
}

template <Arithmetic F> struct SparseMatrix {
  static constexpr Arithmetic kArithmetic = F;
  static constexpr int kMaxRows = StripDot::max_rows<F>();

  template <int R>
  static LFK_INLINE void run(const Matrix &m, int64_t first, int64_t tiles,
                             const Rows<F, R> &rows) {
    constexpr int L = R == 1 ? StripDot::strips<F>() : 2;
    for_each_slice<L>(m, first, tiles, [&](const Slice &slice, int strip) LFK_ALWAYS_INLINE {
      strip_products<F, L, R>(m, slice, strip, first * kTileRows, rows);
    });
  }
};

} // namespace
} // namespace LFK_ISA
} // namespace lstm_fastkernels

#include "kernels/vector/int4.inl"

namespace lstm_fastkernels {
namespace LFK_ISA {
namespace {

// ---- any of them ----

// Runs `count` rows from `row` on in one pass, 1 <= count <= R.
template <class Kind, int R>
LFK_INLINE void one_pass(const Matrix &m, int64_t first, int64_t tiles, const ActivationRows &x,
                         int64_t row, int64_t count, const Target &target) {
  if constexpr (R > 1) {
    if (count < R)
      return one_pass<Kind, R - 1>(m, first, tiles, x, row, count, target);
  }
  Kind::template run<R>(m, first, tiles, Rows<Kind::kArithmetic, R>(x, target, row));
}

template <class Kind>
void tiles_times_rows(const Matrix &m, int64_t first, int64_t tiles, const ActivationRows &x,
                      int64_t rows, const Target &target) {
  constexpr int kMost = Kind::kMaxRows;
  for (int64_t row = 0; row < rows;) {
    const int64_t left = rows - row;
    // Two halves rather than a full and a thin one.
    const int64_t count = left <= kMost ? left : left < 2 * kMost ? (left + 1) / 2 : kMost;
    one_pass<Kind, kMost>(m, first, tiles, x, row, count, target);
    row += count;
  }
}

} // namespace
} // namespace LFK_ISA
} // namespace lstm_fastkernels
