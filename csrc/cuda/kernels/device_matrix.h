// A packed matrix in device memory.
//
// A band is 16 rows, the height of an mma.m16n8k32. 4 bands are a tile: the i, f, g and o rows of
// 16 units, or 64 rows of a projection. A fragment is 32 columns of a band (4 of float32), the
// operand A of one mma. Each band lists its nonzero fragments from left to right, whether the
// matrix was given dense or in blocks. Padding rows and columns are zero.
//
//   starts     where each band's fragments begin, and the end of the last
//   columns    first column of each fragment / 32 (float32: / 4)
//   fragments  16 x 32 int8: 16 bytes for each of 32 lanes, in the order of the mma's registers
//              16 x 4 float32: row by row
//   row_sums   of the weights, where activations have zero points
//
// 4-bit weights are expanded to int8. Each band has all of its fragments, scales for each group of
// columns, a multiple of a fragment's, and float row_sums: each group's sum times its scale.
//
// Within a fragment, lane 4 g + t has columns 8 t .. 8 t + 7 of rows g and g + 8. The mma would
// have other columns there, but a sum does not depend on their order: with this one, a lane's
// activations are 8 neighbours.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/arithmetic.h"
#include "common/host_device.h"
#include "lstm_fastkernels/precision.h"

namespace lstm_fastkernels {
namespace cuda {

constexpr int kGates = 4;
constexpr int kBandsPerTile = kGates;
constexpr int kBandHeight = 16;
constexpr int kTileHeight = kBandsPerTile * kBandHeight;
constexpr int kFragmentColumns = 32;
constexpr int kFragmentBytes = kBandHeight * kFragmentColumns;
constexpr int kFloatColumns = 4;

constexpr int columns_per_fragment(Arithmetic arithmetic) {
  return arithmetic == Arithmetic::float32 ? kFloatColumns : kFragmentColumns;
}
constexpr int bytes_per_fragment(Arithmetic arithmetic) {
  return kBandHeight * columns_per_fragment(arithmetic) *
         (arithmetic == Arithmetic::float32 ? int{sizeof(float)} : 1);
}

// Integer products take any int8 weights, pair-safe or not.
LFK_HOST_DEVICE constexpr Arithmetic arithmetic_of(Precision precision) {
  return precision.weights == WeightType::float32         ? Arithmetic::float32
         : precision.weights == WeightType::int4          ? Arithmetic::int4
         : precision.activations == ActivationType::int16 ? Arithmetic::signed16
                                                          : Arithmetic::any8;
}

// visit(std::integral_constant<Arithmetic, arithmetic>()).
template <class Visit> auto with_arithmetic(Arithmetic arithmetic, const Visit &visit) {
  switch (arithmetic) {
  case Arithmetic::signed16:
    return visit(std::integral_constant<Arithmetic, Arithmetic::signed16>());
  case Arithmetic::float32:
    return visit(std::integral_constant<Arithmetic, Arithmetic::float32>());
  case Arithmetic::int4:
    return visit(std::integral_constant<Arithmetic, Arithmetic::int4>());
  default:
    return visit(std::integral_constant<Arithmetic, Arithmetic::any8>());
  }
}

// Byte offset of a weight in its fragment: of integers, and of either.
constexpr int fragment_byte(int row, int column) {
  const int lane = row % 8 * 4 + column / 8;
  const int reg = column % 8 / 4 * 2 + row / 8;
  return lane * 16 + reg * 4 + column % 4;
}

constexpr int64_t weight_byte(Arithmetic arithmetic, int64_t row, int64_t column) {
  return arithmetic == Arithmetic::float32
             ? (row * kFloatColumns + column) * int64_t{sizeof(float)}
             : fragment_byte(static_cast<int>(row), static_cast<int>(column));
}

// Pointers to device memory.
struct DeviceMatrix {
  const uint32_t *starts = nullptr;   // [bands + 1]
  const uint16_t *columns = nullptr;  // [num_fragments]
  const uint8_t *fragments = nullptr; // [num_fragments][bytes_per_fragment]
  const int32_t *row_sums = nullptr;  // [bands][16] for any8; floats for int4
  const float *scales = nullptr;      // [tiles][scale_groups][64]; 1 for float32
  int32_t scale_groups = 1;           // more than one for int4 alone
  int32_t scale_fragments = 0;        // of int4: how many share a scale
  int32_t num_tiles = 0;
  int32_t num_columns = 0; // without padding
  uint32_t num_fragments = 0;
  int32_t activation_max = 255;
  Precision precision;

  LFK_HOST_DEVICE Arithmetic arithmetic() const { return arithmetic_of(precision); }
  LFK_HOST_DEVICE int64_t padded_rows() const { return int64_t{num_tiles} * kTileHeight; }
};

} // namespace cuda
} // namespace lstm_fastkernels
