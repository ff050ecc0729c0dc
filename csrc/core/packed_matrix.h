// Packing one matrix: what it needs, where its sections lie, and how they are read back.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "packed.h"

namespace lstm_fastkernels {

// Which rows and columns of which source a packed matrix holds.
struct MatrixShape {
  int64_t rows, columns;
  bool gates; // rows are 4 gates of rows / 4 units; otherwise plain rows

  int64_t num_tiles() const {
    return gates ? divide_up(rows / 4, kTileUnits) : divide_up(rows, kTileRows);
  }
  // The source row at `position` of `tile`, or -1 for padding.
  int64_t source_row(int64_t tile, int64_t position) const {
    if (!gates) {
      const int64_t row = tile * kTileRows + position;
      return row < rows ? row : -1;
    }
    const int64_t unit = tile * kTileUnits + position % kTileUnits;
    return unit < rows / 4 ? position / kTileUnits * (rows / 4) + unit : -1;
  }
  // The first source row of a strip, -1 if it is all padding, and how many follow each other.
  int64_t strip_start(int64_t strip) const {
    return source_row(strip / kStripsPerTile, strip % kStripsPerTile * kStripRows);
  }
  int64_t strip_rows(int64_t strip) const {
    const int64_t start = strip_start(strip), of_a_gate = gates ? rows / 4 : rows;
    return start < 0 ? 0 : std::min<int64_t>(kStripRows, of_a_gate - start % of_a_gate);
  }
};

// What a packed buffer says of a matrix.
struct MatrixRecord {
  uint32_t form;
  int32_t activation_max;
  uint32_t block_sparse; // 0 or 1
  uint32_t positions;    // of all slices; 0 where dense
};

// Walks over the sections of a buffer in their one fixed order; bytes() is what it has passed. Each
// section starts at a multiple of 64 bytes.
class Sections {
public:
  explicit Sections(int64_t start) : offset_(start) {}
  int64_t take(int64_t bytes) {
    const int64_t at = offset_;
    offset_ += round_up(bytes, 64);
    return at;
  }
  int64_t bytes() const { return offset_; }

private:
  int64_t offset_;
};

struct MatrixOffsets {
  int64_t tiles, slices, columns, blocks, row_sums, scales;
};

MatrixOffsets take_matrix(Sections &sections, const MatrixShape &shape, const MatrixRecord &record);

// Refuses a record that no matrix of this shape can have.
void check(const MatrixShape &shape, const MatrixRecord &record, int activation_bits);

Matrix view(const MatrixShape &shape, const MatrixRecord &record, const uint8_t *base,
            const MatrixOffsets &at);

template <class T> void write(uint8_t *array, int64_t i, T value) {
  std::memcpy(array + i * static_cast<int64_t>(sizeof(T)), &value, sizeof(T));
}

// Writes value(source row) at each row's place; padding is left as it is.
template <class T, class Value>
void write_rows(uint8_t *section, const MatrixShape &shape, Value value) {
  for (int64_t tile = 0; tile < shape.num_tiles(); ++tile)
    for (int64_t position = 0; position < kTileRows; ++position) {
      const int64_t row = shape.source_row(tile, position);
      if (row >= 0)
        write<T>(section, tile * kTileRows + position, value(row));
    }
}

// The weights of a strip, 8 rows of the source or fewer, over a run of columns.
struct Panel {
  const uint8_t *weights; // of the first row and column; from row to row is the source's stride
  int64_t first_row, rows;
  int64_t first_column, columns;
};

// A validated source, and the decisions on how to pack it. The source must live as long.
class MatrixPlan {
public:
  // `name` is what errors call the matrix. Throws Error.
  MatrixPlan(const MatrixShape &shape, const WeightMatrix &source, int activation_bits,
             const std::string &name);

  const MatrixRecord &record() const { return record_; }
  // Into zeroed memory.
  void write(uint8_t *base, const MatrixOffsets &at) const;

private:
  struct Block {
    uint16_t column;        // the first one / 4
    const uint8_t *weights; // of its first row
  };
  struct Strip {
    int64_t index; // in the matrix
    std::vector<Block> blocks;
  };

  Form form() const { return static_cast<Form>(record_.form); }
  int64_t weight_bytes() const { return lstm_fastkernels::weight_bytes(form()); }
  int64_t strips() const { return shape_.num_tiles() * kStripsPerTile; }
  template <class Visit> void for_each_panel(int64_t strip, const Visit &visit) const;
  void examine(int activation_bits, const std::string &name);
  void check_floats(const std::string &name) const;
  void plan_slices();
  std::vector<Block> blocks_of(int64_t strip) const;
  void write_tiles(uint8_t *tiles) const;
  void write_slices(uint8_t *slices, uint8_t *columns, uint8_t *blocks) const;
  void write_block(int64_t strip, const Block &from, uint8_t *block) const;

  MatrixShape shape_;
  WeightMatrix source_;
  MatrixRecord record_{};
  int64_t stride_;                         // weights from row to row of the source
  std::vector<int32_t> row_sums_;          // of each source row
  std::vector<std::vector<Strip>> slices_; // up to 8 strips each, the longest first
};

} // namespace lstm_fastkernels
