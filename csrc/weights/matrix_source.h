// A matrix as a caller gives it, validated, and what its weights allow: what packing starts from,
// whatever the layout.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "weights/packed.h"

namespace lstm_fastkernels {

// Which rows and columns of which source a packed matrix holds. Its rows lie in tiles of 4 strips,
// a gate each, or plain rows; a strip is 8 rows, or as high as a layout has it.
struct MatrixShape {
  int64_t rows, columns;
  bool gates; // rows are 4 gates of rows / 4 units; otherwise plain rows

  int64_t num_tiles(int64_t height = kStripRows) const {
    return gates ? divide_up(rows / 4, height) : divide_up(rows, kStripsPerTile * height);
  }
  int64_t num_strips(int64_t height = kStripRows) const {
    return num_tiles(height) * kStripsPerTile;
  }
  // Blocks of so many columns, cut per gate; those of padding alone are none.
  int64_t num_blocks(int64_t width, int64_t height = kStripRows) const {
    const int64_t strips = gates ? num_strips(height) : divide_up(rows, height);
    return strips * divide_up(columns, width);
  }
  // The source row at `position` of `tile`, or -1 for padding.
  int64_t source_row(int64_t tile, int64_t position, int64_t height = kStripRows) const {
    if (!gates) {
      const int64_t row = tile * kStripsPerTile * height + position;
      return row < rows ? row : -1;
    }
    const int64_t unit = tile * height + position % height;
    return unit < rows / 4 ? position / height * (rows / 4) + unit : -1;
  }
  // The first source row of a strip of 8, -1 if it is all padding, and how many follow each other.
  int64_t strip_start(int64_t strip) const {
    return source_row(strip / kStripsPerTile, strip % kStripsPerTile * kStripRows);
  }
  int64_t strip_rows(int64_t strip) const {
    const int64_t start = strip_start(strip), of_a_gate = gates ? rows / 4 : rows;
    return start < 0 ? 0 : std::min<int64_t>(kStripRows, of_a_gate - start % of_a_gate);
  }
};

inline MatrixShape matrix_shape(const MatrixName &of) {
  return {of.rows, of.columns, of.gates == 4};
}

// The matrix of a kind among a cell's ih, hh and hr.
template <class Cell> auto &matrix_of(Cell &cell, MatrixKind kind) {
  return kind == MatrixKind::ih ? cell.ih : kind == MatrixKind::hh ? cell.hh : cell.hr;
}

// Whether blocks can have so many rows and columns.
bool is_block_shape(int64_t rows, int64_t columns);

// A matrix in blocks has its gates padded to whole blocks, each by itself.
struct BlockGrid {
  int64_t gates, gate_rows, block_rows_a_gate, blocks_a_row;

  BlockGrid(const MatrixShape &shape, int64_t rows, int64_t columns)
      : gates(shape.gates ? 4 : 1), gate_rows(shape.rows / gates),
        block_rows_a_gate(divide_up(gate_rows, rows)),
        blocks_a_row(divide_up(shape.columns, columns)) {}
  int64_t block_rows() const { return gates * block_rows_a_gate; }
};

// The weights of a strip, 8 rows of the source or fewer, over a run of columns.
struct Panel {
  const uint8_t *weights; // of the first row and column; from row to row is the source's stride
  int64_t first_row, rows;
  int64_t first_column, columns;
};

// What the integers of a matrix allow.
struct Proof {
  bool pair_safe = true;     // -128 <= w[2k] + w[2k + 1] <= 128 in every row
  bool short_sums = true;    // every row's sum fits int16
  int64_t max_magnitude = 0; // max over rows of sum |w|

  void include(int64_t row_sum, int64_t row_magnitude) {
    short_sums = short_sums && row_sum == static_cast<int16_t>(row_sum);
    max_magnitude = std::max(max_magnitude, row_magnitude);
  }
};

// The largest integer of activations; 1 for float32.
int32_t activation_max(Precision precision, const Proof &proof);

// Of `count` weights of `size` bytes, 1 or a float's. -0 is what a mask leaves of a negative float.
bool all_zero(const uint8_t *weights, int64_t count, int64_t size);

// Block rows of a matrix of so many rows: each of its gates is padded to whole ones. Throws Error,
// naming the matrix, for block_rows outside 1..65535.
int64_t count_block_rows(int64_t rows, int64_t gates, int64_t block_rows, const std::string &name);

// The source must live as long.
class MatrixSource {
public:
  // `name` is what errors call the matrix. Throws Error. Indices are copied: another thread may
  // write the caller's between a check and their use.
  MatrixSource(const MatrixShape &shape, const WeightMatrix &source, const std::string &name);
  MatrixSource(MatrixSource &&) = default;

  const MatrixShape &shape() const { return shape_; }
  const Proof &proof() const { return proof_; }
  Precision precision() const { return source_.precision; }
  bool is_float() const { return source_.precision.weights == WeightType::float32; }
  bool is_int4() const { return source_.precision.weights == WeightType::int4; }
  bool in_blocks() const { return source_.crow_indices != nullptr; }
  int64_t stride() const { return stride_; } // weights from row to row of a panel
  // Of a table: the row of an id.
  const uint8_t *table_row(int64_t id, int64_t bytes) const {
    return static_cast<const uint8_t *>(source_.weights) + id * shape_.rows * bytes;
  }
  int64_t weight_bytes() const { return is_float() ? 4 : 1; }
  // Of each source row, for integers.
  const std::vector<int32_t> &row_sums() const { return row_sums_; }
  float scale(int64_t row) const { return source_.scales ? source_.scales[row] : 1.0f; }
  // Of int4, whose weights panels have as int8.
  int64_t group_size() const { return source_.group_size; }
  int64_t scale_groups() const { return divide_up(shape_.columns, source_.group_size); }
  float group_scale(int64_t row, int64_t group) const {
    return source_.scales[row * scale_groups() + group];
  }
  float int4_row_sum(int64_t row) const;

  // Calls visit(panel) from left to right: once for a dense source, once a block for one in blocks.
  template <class Visit> void for_each_panel(int64_t strip, const Visit &visit) const;
  // Calls visit(panel, k) for the parts of kBlockColumns columns, the last one may have fewer, that
  // are not zero, from left to right.
  template <class Visit> void for_each_block(int64_t strip, const Visit &visit) const;

private:
  BlockGrid block_grid() const { return {shape_, source_.block_rows, source_.block_columns}; }
  void copy_indices(const std::string &name);
  void expand(const std::string &name);
  void examine(const std::string &name);
  void check_scales(const std::string &name) const;
  void check_floats(const std::string &name) const;
  void check_table(const std::string &name) const;
  bool is_zero(const Panel &panel, int64_t k) const;

  MatrixShape shape_;
  WeightMatrix source_; // its indices, and the weights of int4, are copies
  std::vector<int32_t> crow_indices_, col_indices_;
  std::vector<int8_t> expanded_;
  int64_t stride_;
  Proof proof_;
  std::vector<int32_t> row_sums_;
};

template <class Visit> void MatrixSource::for_each_panel(int64_t strip, const Visit &visit) const {
  const int64_t row = shape_.strip_start(strip), rows = shape_.strip_rows(strip);
  if (rows == 0)
    return;
  const uint8_t *weights = static_cast<const uint8_t *>(source_.weights);
  if (!in_blocks())
    return visit(Panel{weights + row * stride_ * weight_bytes(), row, rows, 0, shape_.columns});
  const BlockGrid grid = block_grid();
  const int64_t gate = row / grid.gate_rows, row_of_gate = row % grid.gate_rows;
  const int64_t r = gate * grid.block_rows_a_gate + row_of_gate / source_.block_rows;
  for (int64_t b = source_.crow_indices[r]; b < source_.crow_indices[r + 1]; ++b) {
    const int64_t above = b * source_.block_rows + row_of_gate % source_.block_rows;
    const int64_t column = source_.col_indices[b] * source_.block_columns;
    visit(Panel{weights + above * stride_ * weight_bytes(), row, rows, column,
                std::min(source_.block_columns, shape_.columns - column)});
  }
}

template <class Visit> void MatrixSource::for_each_block(int64_t strip, const Visit &visit) const {
  for_each_panel(strip, [&](const Panel &panel) {
    for (int64_t k = 0; k < panel.columns; k += kBlockColumns)
      if (!is_zero(panel, k))
        visit(panel, k);
  });
}

} // namespace lstm_fastkernels
