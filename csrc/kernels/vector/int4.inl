// Products of 4-bit weights, dense: 32 rows of weights and R rows of activations at a time. Each
// group of columns that share a scale has exact sums of its own. Included inside products.inl.

namespace lstm_fastkernels {
namespace LFK_ISA {
namespace {

template <int R>
LFK_INLINE void int4_tile_products(const Matrix &m, int64_t tile,
                                   const Rows<Arithmetic::int4, R> &rows, int64_t at) {
  constexpr int kRegisters = 4 / Dot::kGates;
  constexpr int64_t kRegisterBytes = Dot::kGates * kStripRows * sizeof(float);
  Wide values[R][kRegisters];
  LFK_UNROLLED (i, kRegisters) {
    const Wide sums =
        Dot::load_values(m.row_sums + tile * kTileRows * sizeof(float) + i * kRegisterBytes);
    LFK_UNROLLED (r, R)
      values[r][i] = Dot::splat_values(static_cast<float>(-rows.zero_points[r])) * sums;
  }
  const int64_t columns = m.groups * kBlockColumns;
  const uint8_t *w = m.tiles + tile * m.tile_bytes();
  const uint8_t *scales = m.scales + tile * m.scale_groups * kTileRows * int64_t{sizeof(float)};
  const uint8_t *offsets = rows.q + padded_columns(Arithmetic::int4, columns);
  for (int64_t first = 0; first < columns; first += m.scale_columns) {
    const int64_t left = columns - first;
    const int64_t groups = (left < m.scale_columns ? left : m.scale_columns) / kBlockColumns;
    int32_t offset[R];
    LFK_UNROLLED (r, R)
      offset[r] = read<int32_t>(offsets + r * rows.stride, 0);
    Dot::Int4Sums sums[R][kRegisters];
    Dot::int4_sums<R>(w, rows.q + first, rows.stride, groups, offset, sums);
    LFK_UNROLLED (i, kRegisters) {
      const Wide scale = Dot::load_values(scales + i * kRegisterBytes);
      LFK_UNROLLED (r, R)
        values[r][i] = fma(to_floats(sums[r][i]), scale, values[r][i]);
    }
    w += groups * kTileRows * group_bytes(Arithmetic::int4);
    scales += kTileRows * sizeof(float);
    offsets += sizeof(int32_t);
  }
  LFK_UNROLLED (r, R) {
    LFK_UNROLLED (i, kRegisters)
      rows.put_values(r, at + i * Dot::kGates * kStripRows, values[r][i]);
  }
}

struct Int4Matrix {
  static constexpr Arithmetic kArithmetic = Arithmetic::int4;
  static constexpr int kMaxRows = Dot::max_rows<Arithmetic::int4>();

  template <int R>
  static LFK_INLINE void run(const Matrix &m, int64_t first, int64_t tiles,
                             const Rows<Arithmetic::int4, R> &rows) {
    for (int64_t t = 0; t < tiles; ++t)
      int4_tile_products<R>(m, first + t, rows, t * kTileRows);
  }
};

} // namespace
} // namespace LFK_ISA
} // namespace lstm_fastkernels
