// Packing one matrix: what it needs, where its sections lie, and how they are read back.
#pragma once

#include <string>
#include <vector>

#include "packed.h"

namespace lstm_fastkernels {

[[noreturn]] void fail(const std::string &message);

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
  // The source row that is row i of a strip, or -1 for padding.
  int64_t strip_row(int64_t strip, int64_t i) const {
    return source_row(strip / kStripsPerTile, strip % kStripsPerTile * kStripRows + i);
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

// A validated source, and the decisions on how to pack it.
class MatrixPlan {
public:
  // `name` is what errors call the matrix. Throws std::invalid_argument.
  MatrixPlan(const MatrixShape &shape, const WeightMatrix &source, int activation_bits,
             const std::string &name);

  const MatrixRecord &record() const { return record_; }
  // Into zeroed memory.
  void write(uint8_t *base, const MatrixOffsets &at) const;

private:
  struct Strip {
    int64_t index; // in the matrix
    std::vector<uint16_t> columns;
  };

  Form form() const { return static_cast<Form>(record_.form); }
  const uint8_t *weight(int64_t row, int64_t column) const {
    return weights_ + (row * shape_.columns + column) * weight_bytes(form());
  }
  void plan_slices();
  bool is_zero(int64_t strip, int64_t column) const;
  void write_tiles(uint8_t *tiles) const;
  void write_slices(uint8_t *slices, uint8_t *columns, uint8_t *blocks) const;
  void write_block(int64_t strip, int64_t column, uint8_t *block) const;

  MatrixShape shape_;
  MatrixRecord record_{};
  std::vector<uint8_t> expanded_; // a block-sparse source with its zeros written out
  const uint8_t *weights_;        // row-major
  const float *scales_;
  std::vector<std::vector<Strip>> slices_; // up to 8 strips each, the longest first
};

} // namespace lstm_fastkernels
