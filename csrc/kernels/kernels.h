// What an implementation of the kernels has to offer.
#pragma once

#include <cstdint>

#include "common/numerics.h"
#include "weights/packed.h"

namespace lstm_fastkernels {

// Quantized activation rows: as an Arithmetic multiplies them, one scale and zero point a row.
struct ActivationRows {
  uint8_t *data = nullptr;
  int64_t stride = 0; // bytes from row to row, at least activation_row_bytes
  float *scales = nullptr;
  int32_t *zero_points = nullptr; // of 8 bits; 0 of others
  uint8_t *scratch = nullptr;     // scratch_bytes, of the thread that multiplies

  ActivationRows from(int64_t row) const {
    return {data + row * stride, stride, scales + row, zero_points + row, scratch};
  }
};

// Of a core's second cache: more weights than this are not all there when they are read again.
constexpr int64_t kBytesOfL2 = int64_t{1} << 20;

// Kernels write whole groups of 8, for 4-bit weights of 32.
inline int64_t padded_columns(Arithmetic arithmetic, int64_t n) {
  return round_up(n, arithmetic == Arithmetic::int4 ? 32 : kTileUnits);
}

// Room for one row of n activations of a matrix. For 4-bit weights, which are stored with 8 added,
// int32 follow: 8 times the sum of the activations of each group of columns that share a scale.
inline int64_t activation_row_bytes(const Matrix &target, int64_t n) {
  const int64_t offsets = target.arithmetic == Arithmetic::int4 ? target.scale_groups * 4 : 0;
  return padded_columns(target.arithmetic, n) * activation_bytes(target.arithmetic) + offsets;
}

// Several rows may be laid out anew, up to 8 at a time, for products with a block-sparse matrix.
constexpr int kMostRelaidRows = 8;
inline int64_t scratch_bytes(const Matrix &matrix, int64_t rows) {
  return matrix.is_sparse() && rows > 1 ? kMostRelaidRows * round_up(matrix.groups, 8) * 4 : 0;
}

// Tiles begin .. end - 1 of a matrix: where it is block-sparse, whole windows of it.
struct TileRange {
  int64_t begin, end;
};

// Rows of floats for a range of tiles, [rows][tiles * 32]: from row to row it is `stride` elements.
template <class Float> struct TileRows {
  Float *first = nullptr; // of the range's first tile
  int64_t stride = 0;
};

// One time step of one layer and direction, for a range of hh's tiles.
struct StepArguments {
  int64_t rows = 0;
  ActivationRows h_in;               // in hh's arithmetic
  TileRows<const float> input_gates; // bias and input products of the range
  // [rows][num_tiles * 8], all of a layer's units:
  float *c = nullptr; // in and out
  float *h = nullptr; // out: o tanh(c)
};

inline TileRange all_tiles(const Matrix &matrix) { return {0, matrix.num_tiles}; }

struct Kernels {
  // Quantizes v[0..n) for `target` into the first of some rows, as quantizer() says. For float32,
  // the row is v and its scale 1. A non-finite v gives zeros with a NaN scale.
  void (*quantize_row)(const float *v, int64_t n, RowKind kind, const Matrix &target,
                       const ActivationRows &row);

  // out[row][tile][32] = fma(products, scale of x's row * scale of the weight row, bias) for a
  // range of tiles; bias of all tiles as in the packed form, or null for none.
  void (*products)(const Matrix &matrix, TileRange tiles, const uint8_t *bias, int64_t rows,
                   const ActivationRows &x, TileRows<float> out);

  // gates[tile][32] = the column of a table that a token id has + bias, for a range of tiles; bias
  // of all tiles as in the packed form.
  void (*look_up)(const Matrix &table, TileRange tiles, int64_t id, const uint8_t *bias,
                  float *gates);

  // Recurrent products, gates, c and h in one pass, for the units of a range of tiles.
  void (*step)(const Matrix &hh, TileRange tiles, const StepArguments &arguments);
};

} // namespace lstm_fastkernels
