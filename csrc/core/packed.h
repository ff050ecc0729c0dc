// The packed form of a stack: a header, one record a layer and direction, and bodies that the
// kernels stream. One layout serves every CPU instruction set, at any alignment.
//
// A matrix is cut into tiles of 32 rows: 8 units x 4 gates (i of units 0..7, f of units 0..7, g,
// o), or 32 rows of a projection. Inside a tile, columns go by groups of 4 bytes for 8-bit
// activations:
//
//   k 0..3 of row 0 | k 0..3 of row 1 | ... | k 0..3 of row 31 | k 4..7 of row 0 | ...
//
// and by groups of 2 for 16-bit activations, so that one 4-byte activation group is broadcast
// against 32 rows either way. Rows and columns that do not exist are zero.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "lstm_fastkernels/lstm.h"

namespace lstm_fastkernels {

constexpr int kTileUnits = 8;
constexpr int kTileRows = 32;

// How a matrix's products are formed; chosen at pack time, proven from the weights.
enum class Form : uint32_t {
  offset8 = 0,  // activations offset by 128 to u8: exact in vpmaddubsw as the weights are pair-safe
  signed8 = 1,  // |activation| as u8 times weight with the activation's sign: exact for any weights
  signed16 = 2, // 16-bit activations times sign-extended weights
};

constexpr int columns_per_group(Form form) { return form == Form::signed16 ? 2 : 4; }
constexpr int activation_bytes(Form form) { return form == Form::signed16 ? 2 : 1; }

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }

// Reads element i of an array of T that may be misaligned.
template <class T> T read(const uint8_t *array, int64_t i) {
  T value;
  std::memcpy(&value, array + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

struct Matrix {
  const uint8_t *tiles = nullptr;    // int8 [num_tiles][groups][32][columns_per_group]
  const uint8_t *row_sums = nullptr; // int16 [num_tiles][32], of the weights; Form::offset8 only
  const uint8_t *scales = nullptr;   // float [num_tiles][32]
  int64_t num_tiles = 0;
  int64_t groups = 0;
  Form form = Form::offset8;
  int32_t activation_max = 127; // A: activations are integers in [-A, A]

  int64_t tile_bytes() const { return groups * kTileRows * columns_per_group(form); }
};

struct PackedLayer {
  Matrix ih, hh, hr;
  const uint8_t *bias = nullptr; // float [num_tiles][32]
};

struct PackedStack {
  LstmShape shape;
  std::vector<PackedLayer> layers; // [layer * num_directions + direction]

  // Checks the header and every record; throws std::invalid_argument.
  PackedStack(const void *packed, size_t bytes);
};

} // namespace lstm_fastkernels
