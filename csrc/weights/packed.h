// The packed form of a stack: a header, one record a layer and direction, and bodies that the
// kernels stream. One layout serves every CPU instruction set, at any alignment.
//
// A matrix is cut into tiles of 32 rows: 8 units x 4 gates (i of units 0..7, f of units 0..7, g,
// o), or 32 rows of a projection. Columns go by groups of 4 bytes of activations: 4 columns of
// 8-bit ones, 2 of 16-bit ones, 1 of float32. One group is broadcast against 8 rows at a time. Rows
// and columns that do not exist are zero.
//
// A dense tile holds its groups one behind the other:
//
//   group 0 of row 0 | group 0 of row 1 | ... | group 0 of row 31 | group 1 of row 0 | ...
//
// A tile of 4-bit weights has rows 0..15 in the low halves of its bytes and rows 16..31 in the high
// ones, each weight as weight + 8. A group of 4 columns is one load of 64 bytes:
//
//   columns 0..3 of rows 0 and 16 | columns 0..3 of rows 1 and 17 | ... | of rows 15 and 31 | ...
//
// A table has the column of each token id in one piece, all of its tiles behind each other:
//
//   column 0 of rows 0..31 of tile 0 | of rows 0..31 of tile 1 | ... | column 1 of ... | ...
//
// A block-sparse matrix holds the blocks of 8 rows x 4 columns that are not zero. 8 rows are a
// strip: a gate of a tile. The strips of a window of 16 tiles are sorted by how many blocks they
// have and taken 8 at a time, as a slice, which is as long as its longest strip; shorter ones are
// filled up with zero blocks. A last slice without 8 strips repeats its last one. So 8 independent
// sums run side by side, and lengths seldom change:
//
//   slice: start, length, its 8 strips
//   columns [position][strip]: first column of the block / 4
//   blocks [position][strip]: group 0 of rows 0..7 | group 1 of rows 0..7 | ...
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "common/arithmetic.h"
#include "common/rounding.h"
#include "lstm_fastkernels/weights.h"

namespace lstm_fastkernels {

constexpr int kTileUnits = 8;
constexpr int kTileRows = 32;

constexpr int kStripRows = 8;
constexpr int kStripsPerTile = kTileRows / kStripRows;
constexpr int kBlockColumns = 4;
constexpr int kSliceStrips = 8;
constexpr int kWindowTiles = 16;

constexpr int columns_per_group(Arithmetic arithmetic) { return 4 / activation_bytes(arithmetic); }
// Of the weights of a row.
constexpr int group_bytes(Arithmetic arithmetic) {
  return columns_per_group(arithmetic) * weight_bits(arithmetic) / 8;
}
constexpr int block_bytes(Arithmetic arithmetic) {
  return kStripRows * kBlockColumns * weight_bits(arithmetic) / 8;
}

// Reads element i of an array of T that may be misaligned.
template <class T> T read(const uint8_t *array, int64_t i) {
  T value;
  std::memcpy(&value, array + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

struct Slice {
  uint32_t start, length;       // positions
  uint8_t strips[kSliceStrips]; // counted from the window's first one
};
static_assert(sizeof(Slice) == 16);

struct Matrix {
  // Dense:
  // int8 or float [num_tiles][groups][32][columns_per_group]; int4 [num_tiles][groups][16][4];
  // a table, float or half [columns][num_tiles][32]
  const uint8_t *tiles = nullptr;
  // Block-sparse, null where dense:
  const uint8_t *slices = nullptr;  // Slice [num_slices], 8 for each window
  const uint8_t *columns = nullptr; // uint16 [positions][8]
  const uint8_t *blocks = nullptr;  // int8 or float [positions][8][groups][8][columns_per_group]
  int64_t block_rows = 0;           // of the blocks that it was given in
  int64_t block_columns = 0;

  // Of the weights, where activations have zero points: int16 or, where one needs it, int32
  // [num_tiles][32]. Of int4, float: each group's sum times its scale, added by fma.
  const uint8_t *row_sums = nullptr;
  bool wide_row_sums = false;
  // float [num_tiles][32]; 1 for Arithmetic::float32 and tables; of int4
  // [num_tiles][scale_groups][32]
  const uint8_t *scales = nullptr;
  int64_t scale_columns = 0; // of int4: how many share a scale
  int64_t scale_groups = 1;
  int64_t num_tiles = 0;
  int64_t groups = 0;
  int64_t positions = 0;
  Precision precision;
  Arithmetic arithmetic = Arithmetic::pairs8;
  int32_t activation_max = 255; // A: 16-bit activations are in [-A, A], 8-bit ones in [0, A]

  bool is_sparse() const { return slices != nullptr; }
  int64_t tile_bytes() const { return groups * kTileRows * group_bytes(arithmetic); }
  // Products of one row of activations.
  int64_t products() const {
    if (is_table(arithmetic))
      return 0;
    return is_sparse() ? positions * kSliceStrips * kStripRows * kBlockColumns
                       : num_tiles * groups * kTileRows * columns_per_group(arithmetic);
  }
};

// A matrix or, with a rank, the factor U of one, whose other factor is V.
struct PackedMatrix : Matrix {
  Matrix v;
  int64_t rank = 0;

  bool is_low_rank() const { return rank != 0; }
  // What multiplies the rows that the matrix reads.
  const Matrix &first() const { return is_low_rank() ? v : *this; }
  // Of one row of activations.
  int64_t products() const { return Matrix::products() + v.products(); }
};

struct PackedLayer {
  PackedMatrix ih, hh, hr;
  const uint8_t *bias = nullptr; // float [num_tiles][32]
};

struct PackedStack {
  LstmShape shape;
  std::vector<PackedLayer> layers; // [layer * num_directions + direction]

  bool takes_ids() const { return is_table(layers.front().ih.arithmetic); }

  // Checks all of it, as kernels will believe it: throws Error, naming the matrix.
  PackedStack(const void *packed, size_t bytes);
};

// Whether a packed form is of this library's version and numeric contract, and for the CPU. Throws
// Error for bytes that are no packed form.
bool is_of_this_version(const void *packed, size_t bytes);

} // namespace lstm_fastkernels
