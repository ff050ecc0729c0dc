// The CPU's layout of one matrix: what it needs, where its sections lie, and how they are read
// back.
#pragma once

#include <string>
#include <vector>

#include "weights/matrix_source.h"
#include "weights/packed.h"
#include "weights/packed_stack.h"

namespace lstm_fastkernels {

struct MatrixOffsets {
  int64_t tiles, slices, columns, blocks, row_sums, scales;
};

// A validated source, and the decisions on how to pack it. The source must live as long.
class MatrixPacker {
public:
  // `name` is what errors call the matrix. Throws Error.
  MatrixPacker(const MatrixShape &shape, const WeightMatrix &source, const std::string &name);

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

  Arithmetic arithmetic() const { return static_cast<Arithmetic>(record_.arithmetic); }
  void plan_slices();
  std::vector<Block> blocks_of(int64_t strip) const;
  void write_tiles(uint8_t *tiles) const;
  void write_table(uint8_t *table) const;
  void write_int4(uint8_t *base, const MatrixOffsets &at) const;
  void write_slices(uint8_t *slices, uint8_t *columns, uint8_t *blocks) const;
  void write_block(int64_t strip, const Block &from, uint8_t *block) const;

  MatrixSource source_;
  MatrixRecord record_{};
  std::vector<std::vector<Strip>> slices_; // up to 8 strips each, the longest first
};

// As packed_stack.h wants a layout.
struct CpuLayout {
  using Plan = MatrixPacker;
  using Offsets = MatrixOffsets;
  static constexpr Backend kBackend = Backend::cpu;
  static constexpr int64_t kHeight = kStripRows;

  static Offsets place(Sections &sections, const MatrixShape &shape, const MatrixRecord &record);
  static void check(const MatrixShape &shape, const MatrixRecord &record);
};

// The place of a weight in a block of 8 x 4, in weights.
inline int64_t weight_in_block(Arithmetic arithmetic, int64_t row, int64_t column) {
  const int64_t group = columns_per_group(arithmetic);
  return (column / group * kStripRows + row) * group + column % group;
}

// The place of a weight in a tile of 32 rows, in weights; not of int4 or tables.
inline int64_t weight_in_tile(Arithmetic arithmetic, int64_t row, int64_t column) {
  const int64_t group = columns_per_group(arithmetic);
  return (column / group * kTileRows + row) * group + column % group;
}

// The arithmetic for what the weights allow.
Arithmetic choose(Precision precision, const Proof &proof);
// Of one row's sum; 0 where activations have no zero points.
uint32_t row_sum_bytes(Arithmetic arithmetic, const Proof &proof);

Matrix view(const MatrixShape &shape, const MatrixRecord &record, const uint8_t *base,
            const MatrixOffsets &at);

// Throws Error, naming the matrix, unless its sections are such as MatrixPacker writes.
void check_contents(const Matrix &matrix, const MatrixShape &shape, const std::string &name);

} // namespace lstm_fastkernels
