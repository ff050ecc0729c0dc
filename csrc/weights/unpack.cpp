#include "weights/unpack.h"

#include "weights/packed_int4.h"
#include "weights/packed_matrix.h"

namespace lstm_fastkernels {
namespace {

// How the CPU's layout is read.
struct Reader {
  static constexpr int64_t kHeight = kStripRows;

  template <class Visit>
  static void for_each_piece(const Matrix &m, const MatrixShape &shape, const Visit &visit) {
    switch (m.arithmetic) {
    case Arithmetic::int4:
      return read_int4(m, shape, visit);
    case Arithmetic::table32:
      return read_table<float>(m, shape, visit);
    case Arithmetic::table16:
      return read_table<uint16_t>(m, shape, visit);
    case Arithmetic::float32:
      return read_weights<float>(m, shape, visit);
    default:
      return read_weights<int8_t>(m, shape, visit);
    }
  }

private:
  // Calls visit(strip, column) for every piece of a dense matrix.
  template <class Visit> static void for_each_place(const MatrixShape &shape, const Visit &visit) {
    for (int64_t strip = 0; strip < shape.num_strips(); ++strip)
      for (int64_t column = 0; column < shape.columns; column += kBlockColumns)
        visit(strip, column);
  }

  template <class Weight, class Visit>
  static void read_weights(const Matrix &m, const MatrixShape &shape, const Visit &visit) {
    if (m.is_sparse())
      read_slices<Weight>(m, shape, visit);
    else
      read_tiles(m, shape, visit, [&](const uint8_t *tile, int64_t position, int64_t column) {
        return read<Weight>(tile, weight_in_tile(m.arithmetic, position, column));
      });
  }

  template <class Visit>
  static void read_int4(const Matrix &m, const MatrixShape &shape, const Visit &visit) {
    read_tiles(m, shape, visit, [](const uint8_t *tile, int64_t position, int64_t column) {
      return static_cast<int8_t>(int4_weight(tile, position, column));
    });
  }

  // weight_at(tile, position in it, column)
  template <class Visit, class WeightAt>
  static void read_tiles(const Matrix &m, const MatrixShape &shape, const Visit &visit,
                         const WeightAt &weight_at) {
    for_each_place(shape, [&](int64_t strip, int64_t column) {
      const uint8_t *const tile = m.tiles + strip / kStripsPerTile * m.tile_bytes();
      const int64_t position = strip % kStripsPerTile * kStripRows;
      visit(strip, column,
            [&](int64_t i, int64_t k) { return weight_at(tile, position + i, column + k); });
    });
  }

  template <class Weight, class Visit>
  static void read_table(const Matrix &m, const MatrixShape &shape, const Visit &visit) {
    const int64_t rows = m.num_tiles * kTileRows;
    for_each_place(shape, [&](int64_t strip, int64_t id) {
      visit(strip, id, [&](int64_t i, int64_t k) {
        return read<Weight>(m.tiles, (id + k) * rows + strip * kStripRows + i);
      });
    });
  }

  template <class Weight, class Visit>
  static void read_slices(const Matrix &m, const MatrixShape &shape, const Visit &visit) {
    constexpr int64_t kWindowStrips = kWindowTiles * kStripsPerTile;
    int64_t n = 0;
    for (int64_t first = 0; first < shape.num_strips(); first += kWindowStrips)
      for (int64_t left = std::min(shape.num_strips() - first, kWindowStrips); left > 0;
           left -= kSliceStrips) {
        const Slice slice = read<Slice>(m.slices, n++);
        for (int64_t s = 0; s < std::min<int64_t>(left, kSliceStrips); ++s)
          for (int64_t i = 0; i < slice.length; ++i) {
            const int64_t slot = (int64_t{slice.start} + i) * kSliceStrips + s;
            const uint8_t *const block = m.blocks + slot * block_bytes(m.arithmetic);
            visit(first + slice.strips[s], int64_t{read<uint16_t>(m.columns, slot)} * kBlockColumns,
                  [&](int64_t row, int64_t column) {
                    return read<Weight>(block, weight_in_block(m.arithmetic, row, column));
                  });
          }
      }
  }
};

} // namespace

std::vector<UnpackedTensor> unpack(const PackedStack &stack) {
  return unpack_stack<Reader>(stack.shape, stack.layers);
}

} // namespace lstm_fastkernels
