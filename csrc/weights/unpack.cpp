#include "weights/unpack.h"

#include <algorithm>
#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include "common/fail.h"
#include "weights/packed_int4.h"
#include "weights/packed_matrix.h"

namespace lstm_fastkernels {
namespace {

// Bytes of an element, by dtype.
int64_t size_of(const std::string &dtype) {
  return dtype == "I8" || dtype == "U8" ? 1 : dtype == "F16" ? 2 : 4;
}

// Calls visit(source row, tile, position in it) for each row that is not padding.
template <class Visit> void for_each_row(const MatrixShape &shape, const Visit &visit) {
  for (int64_t tile = 0; tile < shape.num_tiles(); ++tile)
    for (int64_t position = 0; position < kTileRows; ++position)
      if (const int64_t row = shape.source_row(tile, position); row >= 0)
        visit(row, tile, position);
}

// [rows][count] from what write_row_values wrote.
void read_floats(const uint8_t *section, const MatrixShape &shape, int64_t count, uint8_t *to) {
  for_each_row(shape, [&](int64_t row, int64_t tile, int64_t position) {
    for (int64_t i = 0; i < count; ++i)
      write(to, row * count + i, read<float>(section, (tile * count + i) * kTileRows + position));
  });
}

void read_tiles(const Matrix &m, const MatrixShape &shape, uint8_t *to) {
  const int64_t size = weight_bytes(m.arithmetic);
  for_each_row(shape, [&](int64_t row, int64_t tile, int64_t position) {
    const uint8_t *const from = m.tiles + tile * m.tile_bytes();
    uint8_t *const out = to + row * shape.columns * size;
    for (int64_t k = 0; k < shape.columns; ++k)
      std::memcpy(out + k * size, from + weight_in_tile(m.arithmetic, position, k) * size,
                  static_cast<size_t>(size));
  });
}

void read_int4(const Matrix &m, const MatrixShape &shape, uint8_t *to) {
  const int64_t row_bytes = divide_up(shape.columns, 2);
  std::fill_n(to, shape.rows * row_bytes, uint8_t{0});
  for_each_row(shape, [&](int64_t row, int64_t tile, int64_t position) {
    const uint8_t *const from = m.tiles + tile * m.tile_bytes();
    uint8_t *const out = to + row * row_bytes;
    for (int64_t k = 0; k < shape.columns; ++k)
      out[k / 2] |= static_cast<uint8_t>((int4_weight(from, position, k) & 15) << (k % 2 ? 4 : 0));
  });
}

void read_table(const Matrix &m, const MatrixShape &shape, uint8_t *to) {
  const int64_t size = weight_bytes(m.arithmetic), rows = m.num_tiles * kTileRows;
  for_each_row(shape, [&](int64_t row, int64_t tile, int64_t position) {
    for (int64_t id = 0; id < shape.columns; ++id)
      std::memcpy(to + (id * shape.rows + row) * size,
                  m.tiles + (id * rows + tile * kTileRows + position) * size,
                  static_cast<size_t>(size));
  });
}

// A block of 8 x 4, or what exists of it, and its place in a block of the caller's.
struct Piece {
  int64_t block_row, block_column; // of the caller's block, in blocks
  int64_t row, column;             // in it
  int64_t rows, columns;
  const uint8_t *weights;
};

// In the order of the caller's blocks.
std::vector<Piece> pieces_of(const Matrix &m, const MatrixShape &shape) {
  const BlockGrid grid(shape, m.block_rows, m.block_columns);
  const int64_t size = weight_bytes(m.arithmetic);
  std::vector<Piece> pieces;
  const auto add_strip = [&](int64_t strip, int64_t slot, int64_t length) {
    const int64_t start = shape.strip_start(strip), rows = shape.strip_rows(strip);
    const int64_t gate = start / grid.gate_rows, row = start % grid.gate_rows;
    for (int64_t i = 0; i < length; ++i, slot += kSliceStrips) {
      const uint8_t *const block = m.blocks + slot * block_bytes(m.arithmetic);
      if (all_zero(block, kStripRows * kBlockColumns, size))
        return; // what fills a strip up
      const int64_t column = int64_t{read<uint16_t>(m.columns, slot)} * kBlockColumns;
      pieces.push_back({gate * grid.block_rows_a_gate + row / m.block_rows,
                        column / m.block_columns, row % m.block_rows, column % m.block_columns,
                        rows, std::min<int64_t>(kBlockColumns, shape.columns - column), block});
    }
  };
  constexpr int64_t kWindowStrips = kWindowTiles * kStripsPerTile;
  int64_t n = 0;
  for (int64_t first = 0; first < shape.num_strips(); first += kWindowStrips)
    for (int64_t left = std::min(shape.num_strips() - first, kWindowStrips); left > 0;
         left -= kSliceStrips) {
      const Slice slice = read<Slice>(m.slices, n++);
      for (int64_t s = 0; s < std::min<int64_t>(left, kSliceStrips); ++s)
        add_strip(first + slice.strips[s], int64_t{slice.start} * kSliceStrips + s, slice.length);
    }
  std::sort(pieces.begin(), pieces.end(), [](const Piece &a, const Piece &b) {
    return std::tie(a.block_row, a.block_column) < std::tie(b.block_row, b.block_column);
  });
  return pieces;
}

// The caller's blocks that have a weight other than zero, as torch's BSR has them.
struct Blocks {
  Blocks(const Matrix &of, const MatrixShape &shape)
      : m(of), pieces(pieces_of(of, shape)),
        crow_indices(
            static_cast<size_t>(BlockGrid(shape, m.block_rows, m.block_columns).block_rows() + 1)) {
    for (size_t i = 0; i < pieces.size(); ++i) {
      const Piece &piece = pieces[i];
      if (i == 0 || piece.block_row != pieces[i - 1].block_row ||
          piece.block_column != pieces[i - 1].block_column) {
        col_indices.push_back(static_cast<int32_t>(piece.block_column));
        ++crow_indices[static_cast<size_t>(piece.block_row) + 1];
      }
      block_of.push_back(static_cast<int64_t>(col_indices.size()) - 1);
    }
    for (size_t r = 1; r < crow_indices.size(); ++r)
      crow_indices[r] += crow_indices[r - 1];
  }

  int64_t count() const { return static_cast<int64_t>(col_indices.size()); }
  void read_values(uint8_t *to) const {
    const int64_t size = weight_bytes(m.arithmetic);
    std::fill_n(to, count() * m.block_rows * m.block_columns * size, uint8_t{0});
    for (size_t n = 0; n < pieces.size(); ++n) {
      const Piece &piece = pieces[n];
      for (int64_t i = 0; i < piece.rows; ++i)
        for (int64_t k = 0; k < piece.columns; ++k)
          std::memcpy(to + ((block_of[n] * m.block_rows + piece.row + i) * m.block_columns +
                            piece.column + k) *
                               size,
                      piece.weights + weight_in_block(m.arithmetic, i, k) * size,
                      static_cast<size_t>(size));
    }
  }

  Matrix m;
  std::vector<Piece> pieces;
  std::vector<int32_t> crow_indices, col_indices;
  std::vector<int64_t> block_of; // each piece
};

class Unpacking {
public:
  // A matrix that is not low-rank, or a factor.
  void add(const std::string &name, const Matrix &m, const MatrixShape &shape) {
    if (m.is_sparse())
      add_blocks(name, m, shape);
    else if (m.arithmetic == Arithmetic::int4)
      add_tensor(name, "U8", {shape.rows, divide_up(shape.columns, 2)},
                 [=](uint8_t *to) { read_int4(m, shape, to); });
    else if (is_table(m.arithmetic))
      add_tensor(name + "_table", m.arithmetic == Arithmetic::table16 ? "F16" : "F32",
                 {shape.columns, shape.rows}, [=](uint8_t *to) { read_table(m, shape, to); });
    else
      add_tensor(name, dtype_of(m), {shape.rows, shape.columns},
                 [=](uint8_t *to) { read_tiles(m, shape, to); });
    if (m.precision.weights == WeightType::int4)
      add_floats(name + "_scale", m.scales, shape, {shape.rows, m.scale_groups});
    else if (m.precision.weights == WeightType::int8)
      add_floats(name + "_scale", m.scales, shape, {shape.rows});
  }

  // A row's values, one or those of the last dimension.
  void add_floats(const std::string &name, const uint8_t *section, const MatrixShape &shape,
                  std::vector<int64_t> sizes) {
    const int64_t count = sizes.size() == 2 ? sizes[1] : 1;
    add_tensor(name, "F32", std::move(sizes),
               [=](uint8_t *to) { read_floats(section, shape, count, to); });
  }

  std::vector<UnpackedTensor> tensors;

private:
  static const char *dtype_of(const Matrix &m) {
    return m.arithmetic == Arithmetic::float32 ? "F32" : "I8";
  }

  void add_blocks(const std::string &name, const Matrix &m, const MatrixShape &shape) {
    const auto blocks = std::make_shared<const Blocks>(m, shape);
    add_tensor(name + "_values", dtype_of(m), {blocks->count(), m.block_rows, m.block_columns},
               [=](uint8_t *to) { blocks->read_values(to); });
    add_indices(name + "_crow_indices", blocks, blocks->crow_indices);
    add_indices(name + "_col_indices", blocks, blocks->col_indices);
  }

  void add_indices(const std::string &name, const std::shared_ptr<const Blocks> &blocks,
                   const std::vector<int32_t> &indices) {
    add_tensor(name, "I32", {static_cast<int64_t>(indices.size())},
               [blocks, &indices](uint8_t *to) {
                 for (size_t i = 0; i < indices.size(); ++i)
                   write(to, static_cast<int64_t>(i), indices[i]);
               });
  }

  template <class Write>
  void add_tensor(const std::string &name, const char *dtype, std::vector<int64_t> sizes,
                  const Write &write_to) {
    TensorView view;
    view.name = name;
    view.dtype = dtype;
    int64_t bytes = size_of(view.dtype);
    for (const int64_t size : sizes)
      if (__builtin_mul_overflow(bytes, size, &bytes))
        fail("packed weights: " + name + " is too large");
    view.bytes = static_cast<size_t>(bytes);
    view.shape = std::move(sizes);
    tensors.push_back(
        {std::move(view), [write_to](void *to) { write_to(static_cast<uint8_t *>(to)); }});
  }
};

} // namespace

std::vector<UnpackedTensor> unpack(const PackedStack &stack) {
  Unpacking unpacking;
  for (const MatrixName &of : matrix_names(stack.shape)) {
    const PackedMatrix &m = matrix_of(stack.layers[static_cast<size_t>(of.cell)], of.kind);
    for (int part = 0; part < num_parts(m.rank); ++part)
      unpacking.add(part_name(of.name, m.rank, part), part ? m.v : m,
                    part_shape(matrix_shape(of), m.rank, part));
  }
  for (int64_t cell = 0; cell < stack.shape.num_cells(); ++cell)
    unpacking.add_floats("bias" + cell_suffix(stack.shape, cell),
                         stack.layers[static_cast<size_t>(cell)].bias, gates_shape(stack.shape),
                         {4 * stack.shape.hidden_size});
  return std::move(unpacking.tensors);
}

} // namespace lstm_fastkernels
