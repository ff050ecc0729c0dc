// Products of 4-bit weights, dense: 32 rows of weights and R rows of activations at a time. Each
// group of columns that share a scale has exact sums of its own, which Dot::int4_sums forms.
// Included inside products.inl.

namespace lstm_fastkernels {
namespace LFK_ISA {
namespace {

template <int R>
LFK_INLINE void int4_tile_products(const Matrix &m, int64_t tile,
                                   const Rows<Arithmetic::int4, R> &rows, int64_t at) {
  constexpr int64_t kLanes = Dot::kGates * kStripRows;
  Dot::Register values[R][kRegisters];
  LFK_UNROLLED (i, kRegisters) {
    const auto row_sums = Dot::load(m.row_sums + (tile * kTileRows + i * kLanes) * 4);
    LFK_UNROLLED (r, R)
      values[r][i] = Dot::times_float(row_sums, -rows.zero_points[r]);
  }
  const int64_t columns = m.groups * kBlockColumns;
  const uint8_t *w = m.tiles + tile * m.tile_bytes();
  const uint8_t *scales = m.scales + tile * m.scale_groups * kTileRows * 4;
  const uint8_t *offsets = rows.q + round_up(columns, 32);
  for (int64_t first = 0; first < columns; first += m.scale_columns) {
    const int64_t left = columns - first;
    const int64_t groups = (left < m.scale_columns ? left : m.scale_columns) / kBlockColumns;
    int32_t offset[R];
    LFK_UNROLLED (r, R)
      offset[r] = read<int32_t>(offsets + r * rows.stride, 0);
    Dot::Register sums[R][kRegisters];
    Dot::int4_sums<R>(w, rows.q + first, rows.stride, groups, offset, sums);
    LFK_UNROLLED (i, kRegisters) {
      const auto scale = Dot::load(scales + i * kLanes * 4);
      LFK_UNROLLED (r, R)
        values[r][i] = Dot::add_scaled(values[r][i], sums[r][i], scale);
    }
    w += groups * kTileRows * group_bytes(Arithmetic::int4);
    scales += kTileRows * 4;
    offsets += 4;
  }
  LFK_UNROLLED (r, R) {
    LFK_UNROLLED (g, 4)
      rows.put(r, at + g * kStripRows, Dot::gate(values[r][g / Dot::kGates], g % Dot::kGates));
  }
}

struct Int4Matrix {
  static constexpr Arithmetic kArithmetic = Arithmetic::int4;
  static constexpr int kMaxRows = Dot::kInt4Rows;

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
