// Products of weights and activation rows on x86, dense and block-sparse, over the policies `Dot`
// and `Dot256` that the including file defines for its instruction set. Included inside a target
// region; everything here has internal linkage.
//
// Both give: Register; max_rows(), the rows that share one pass over the weights; zero();
// broadcast(4 bytes); magnitude(activations); weights<arithmetic>(address); add<arithmetic>(sums,
// activations, their magnitudes, weights). Registers hold floats where the form is float32,
// integers otherwise. Dot256's registers have 8 sums; Dot's have kGates x 8: gate(register, i)
// gives the i-th 8 of them.

namespace lstm_fastkernels {
namespace LFK_ISA {
namespace {

#define LFK_ALWAYS_INLINE __attribute__((always_inline))
#define LFK_INLINE inline LFK_ALWAYS_INLINE

// Loops over registers are unrolled whatever the compiler thinks of it: an array that is indexed by
// a variable would live in memory.
#define LFK_UNROLLED(i, n) _Pragma("GCC unroll 8") for (int i = 0; i < (n); ++i)

LFK_INLINE __m256 load_floats(const uint8_t *array, int64_t i) {
  return _mm256_loadu_ps(reinterpret_cast<const float *>(array + i * 4));
}

// Where sums go: out[row][i] = fma(sum, scale of the row * scale i, addend[row][i]). Elements are
// those of a range of tiles, the first one's first element is 0.
struct Target {
  const float *row_scales;
  const uint8_t *scales;
  const uint8_t *addend; // floats
  int64_t addend_stride; // elements from row to row; 0: one for all rows
  float *out;
  int64_t out_stride;
};

// R rows of a target from `row` on.
template <Arithmetic F, int R> struct TargetRows {
  const uint8_t *scales;
  float row_scales[R];
  const uint8_t *addends[R];
  float *outs[R];

  LFK_INLINE TargetRows(const Target &target, int64_t row) : scales(target.scales) {
    LFK_UNROLLED (r, R) {
      row_scales[r] = target.row_scales[row + r];
      addends[r] = target.addend + (row + r) * target.addend_stride * 4;
      outs[r] = target.out + (row + r) * target.out_stride;
    }
  }

  LFK_INLINE void put(int r, int64_t i, __m256i sums) const {
    const __m256 scale = _mm256_mul_ps(_mm256_set1_ps(row_scales[r]), load_floats(scales, i));
    const __m256 floats =
        F == Arithmetic::float32 ? _mm256_castsi256_ps(sums) : _mm256_cvtepi32_ps(sums);
    _mm256_storeu_ps(outs[r] + i, _mm256_fmadd_ps(floats, scale, load_floats(addends[r], i)));
  }
};

// Activations are offset by 128, which adds 128 * (sum of the row's weights): where sums start.
template <Arithmetic F, class D>
LFK_INLINE typename D::Register first_sums(const Matrix &m, int64_t i) {
  if constexpr (F == Arithmetic::offset8)
    return D::minus_128_times(m.row_sums + i * 2);
  return D::zero();
}

// ---- dense: 32 rows of weights and R rows of activations at a time ----

constexpr int kRegisters = 4 / Dot::kGates;

template <Arithmetic F, int R>
LFK_INLINE void tile_products(const Matrix &m, int64_t tile, const uint8_t *q, int64_t stride,
                              const TargetRows<F, R> &to, int64_t at) {
  Dot::Register sums[R][kRegisters];
  LFK_UNROLLED (i, kRegisters) {
    LFK_UNROLLED (r, R)
      sums[r][i] = first_sums<F, Dot>(m, (tile * 4 + i * Dot::kGates) * kStripRows);
  }
  constexpr int kRegisterBytes = Dot::kGates * kStripRows * columns_per_group(F);
  const uint8_t *w = m.tiles + tile * m.tile_bytes();
  const uint8_t *const end = q + m.groups * 4;
#pragma GCC unroll 2
  for (; q != end; q += 4, w += kRegisters * kRegisterBytes) {
    Dot::Register weights[kRegisters];
    LFK_UNROLLED (i, kRegisters)
      weights[i] = Dot::weights<F>(w + i * kRegisterBytes);
    LFK_UNROLLED (r, R) {
      const Dot::Register a = Dot::broadcast(read<int32_t>(q + r * stride, 0));
      const Dot::Register magnitude = F == Arithmetic::signed8 ? Dot::magnitude(a) : a;
      LFK_UNROLLED (i, kRegisters)
        sums[r][i] = Dot::add<F>(sums[r][i], a, magnitude, weights[i]);
    }
  }
  LFK_UNROLLED (r, R) {
    LFK_UNROLLED (g, 4)
      to.put(r, at + g * kStripRows, Dot::gate(sums[r][g / Dot::kGates], g % Dot::kGates));
  }
}

template <Arithmetic F> struct DenseRows {
  static constexpr Arithmetic kArithmetic = F;
  static constexpr int kMax = Dot::max_rows();

  template <int R>
  static LFK_INLINE void run(const Matrix &m, int64_t first, int64_t tiles, const uint8_t *q,
                             int64_t stride, const TargetRows<F, R> &to) {
    for (int64_t t = 0; t < tiles; ++t)
      tile_products<F, R>(m, first + t, q, stride, to, t * kTileRows);
  }
};

// ---- block-sparse: the blocks of L strips of a slice and R rows of activations at a time ----

template <Arithmetic F, int L, int R>
LFK_INLINE void strip_products(const Matrix &m, const Slice &slice, int first, int64_t window_row,
                               const uint8_t *q, int64_t stride, const TargetRows<F, R> &to) {
  constexpr int kGroups = kBlockColumns / columns_per_group(F);
  constexpr int kGroupBytes = block_bytes(F) / kGroups;
  Dot256::Register sums[L][R];
  LFK_UNROLLED (l, L) {
    LFK_UNROLLED (r, R)
      sums[l][r] = first_sums<F, Dot256>(m, window_row + slice.strips[first + l] * kStripRows);
  }
  const int64_t slot = int64_t{slice.start} * kSliceStrips + first;
  const uint8_t *column = m.columns + slot * 2;
  const uint8_t *w = m.blocks + slot * block_bytes(F);
  for (uint32_t n = slice.length; n > 0; --n) {
    LFK_UNROLLED (l, L) {
      const uint8_t *a = q + int64_t{read<uint16_t>(column, l)} * (kGroups * 4);
      LFK_UNROLLED (g, kGroups) {
        const Dot256::Register weights =
            Dot256::weights<F>(w + l * block_bytes(F) + g * kGroupBytes);
        LFK_UNROLLED (r, R) {
          const Dot256::Register b = Dot256::broadcast(read<int32_t>(a + r * stride, g));
          const Dot256::Register magnitude = F == Arithmetic::signed8 ? Dot256::magnitude(b) : b;
          sums[l][r] = Dot256::add<F>(sums[l][r], b, magnitude, weights);
        }
      }
    }
    column += kSliceStrips * 2;
    w += kSliceStrips * block_bytes(F);
  }
  LFK_UNROLLED (l, L) {
    LFK_UNROLLED (r, R)
      to.put(r, slice.strips[first + l] * kStripRows, sums[l][r]);
  }
}

template <Arithmetic F> struct SparseRows {
  static constexpr Arithmetic kArithmetic = F;
  static constexpr int kMax = Dot256::max_rows();

  // The first tile is the first of its window, and at most that window is asked for.
  template <int R>
  static LFK_INLINE void run(const Matrix &m, int64_t first, int64_t tiles, const uint8_t *q,
                             int64_t stride, const TargetRows<F, R> &to) {
    constexpr int L = R == 1 ? kSliceStrips : 2;
    const int64_t slice = first * kStripsPerTile / kSliceStrips;
    const int64_t slices = divide_up(tiles * kStripsPerTile, kSliceStrips);
    for (int64_t i = slice; i < slice + slices; ++i) {
      const Slice taken = read<Slice>(m.slices, i);
      for (int l = 0; l < kSliceStrips; l += L)
        strip_products<F, L, R>(m, taken, l, first * kTileRows, q, stride, to);
    }
  }
};

// ---- either ----

// Runs `count` rows from `row` on in one pass, 1 <= count <= R.
template <class Rows, int R>
LFK_INLINE void one_pass(const Matrix &m, int64_t first, int64_t tiles, const ActivationRows &x,
                         int64_t row, int64_t count, const Target &target) {
  if constexpr (R > 1) {
    if (count < R)
      return one_pass<Rows, R - 1>(m, first, tiles, x, row, count, target);
  }
  Rows::template run<R>(m, first, tiles, x.data + row * x.stride, x.stride,
                        TargetRows<Rows::kArithmetic, R>(target, row));
}

template <class Rows>
void tiles_times_rows(const Matrix &m, int64_t first, int64_t tiles, const ActivationRows &x,
                      int64_t rows, const Target &target) {
  constexpr int kMax = Rows::kMax;
  for (int64_t row = 0; row < rows;) {
    const int64_t left = rows - row;
    // Two halves rather than a full and a thin one.
    const int64_t count = left <= kMax ? left : left < 2 * kMax ? (left + 1) / 2 : kMax;
    one_pass<Rows, kMax>(m, first, tiles, x, row, count, target);
    row += count;
  }
}

// Tiles first..first + tiles - 1 times all rows of x.
void multiply(const Matrix &m, int64_t first, int64_t tiles, const ActivationRows &x, int64_t rows,
              const Target &target) {
  const auto run = [&](auto dense, auto sparse) {
    if (m.is_sparse())
      tiles_times_rows<decltype(sparse)>(m, first, tiles, x, rows, target);
    else
      tiles_times_rows<decltype(dense)>(m, first, tiles, x, rows, target);
  };
  switch (m.arithmetic) {
  case Arithmetic::offset8:
    return run(DenseRows<Arithmetic::offset8>(), SparseRows<Arithmetic::offset8>());
  case Arithmetic::signed8:
    return run(DenseRows<Arithmetic::signed8>(), SparseRows<Arithmetic::signed8>());
  case Arithmetic::signed16:
    return run(DenseRows<Arithmetic::signed16>(), SparseRows<Arithmetic::signed16>());
  case Arithmetic::float32:
    return tiles_times_rows<SparseRows<Arithmetic::float32>>(m, first, tiles, x, rows, target);
  }
}

} // namespace
} // namespace LFK_ISA
} // namespace lstm_fastkernels
