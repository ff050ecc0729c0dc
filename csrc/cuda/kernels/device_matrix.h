// A packed matrix in device memory.
//
// It is cut into strips of 16 rows, the height of an mma.m16n8k32 tile; 4 strips are a tile: the
// i, f, g and o rows of 16 units, or 64 rows of a projection. A strip is a list of blocks of
// 32 columns (4 for float32) from left to right; blocks that are all zero are left out, whether the
// matrix was given dense or in blocks. Rows and columns that do not exist are zero.
//
//   starts   where each strip's blocks begin, and the end of the last
//   columns  of each block, counted in blocks
//   blocks   16 x 32 int8: 32 lanes x 16 bytes, the A fragment of each lane
//            16 x 4 float32: row by row
//
// Within 32 columns, lane 4 g + t has columns 8 t .. 8 t + 7 of rows g and g + 8: sums do not care
// which column is which k of the instruction, so a lane's share of the activations, which must be
// in the same order, is 8 neighbours.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/form.h"
#include "common/host_device.h"

namespace lstm_fastkernels {
namespace cuda {

constexpr int kGates = 4;
constexpr int kStripsPerTile = kGates;
constexpr int kStripHeight = 16;
constexpr int kTileHeight = kStripsPerTile * kStripHeight;
constexpr int kFragmentColumns = 32;
constexpr int kFragmentBytes = kStripHeight * kFragmentColumns;
constexpr int kFloatColumns = 4;

constexpr int columns_per_block(Form form) {
  return form == Form::float32 ? kFloatColumns : kFragmentColumns;
}
constexpr int bytes_per_block(Form form) {
  return kStripHeight * columns_per_block(form) * weight_bytes(form);
}

// visit(std::integral_constant<Form, form>()).
template <class Visit> auto with_form(Form form, const Visit &visit) {
  switch (form) {
  case Form::signed16:
    return visit(std::integral_constant<Form, Form::signed16>());
  case Form::float32:
    return visit(std::integral_constant<Form, Form::float32>());
  default:
    return visit(std::integral_constant<Form, Form::signed8>());
  }
}

// Where a weight lies in its fragment.
constexpr int fragment_byte(int row, int column) {
  const int lane = row % 8 * 4 + column / 8;
  const int reg = column % 8 / 4 * 2 + row / 8;
  return lane * 16 + reg * 4 + column % 4;
}

// Device memory.
struct Matrix {
  const uint32_t *starts = nullptr;  // [strips + 1]
  const uint16_t *columns = nullptr; // [blocks]
  const uint8_t *blocks = nullptr;   // [blocks][bytes_per_block]
  const float *scales = nullptr;     // [strips][16]; 1 for float32
  int32_t num_tiles = 0;
  int32_t num_columns = 0; // without padding
  uint32_t num_blocks = 0;
  int32_t activation_max = 127;

  LFK_HOST_DEVICE int64_t padded_rows() const { return int64_t{num_tiles} * kTileHeight; }
};

} // namespace cuda
} // namespace lstm_fastkernels
