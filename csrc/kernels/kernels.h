// What an implementation of the kernels has to offer.
#pragma once

#include <cstdint>

#include "weights/packed.h"

namespace lstm_fastkernels {

// Quantized activation rows: as an Arithmetic multiplies them, and one scale a row.
struct ActivationRows {
  uint8_t *data = nullptr;
  int64_t stride = 0; // bytes from row to row, at least activation_row_bytes
  float *scales = nullptr;

  ActivationRows from(int64_t row) const { return {data + row * stride, stride, scales + row}; }
};

// Room for one row of n activations: kernels write whole groups of 8.
inline int64_t activation_row_bytes(Arithmetic arithmetic, int64_t n) {
  return round_up(n, kTileUnits) * activation_bytes(arithmetic);
}

// One time step of one layer and direction. Float rows are [rows][num_tiles * 32] for gates and
// [rows][num_tiles * 8] for c and h, contiguous.
struct StepArguments {
  int64_t rows = 0;
  ActivationRows h_in;                // in hh's arithmetic
  const float *input_gates = nullptr; // bias and input products, in tile order
  float *c = nullptr;                 // in and out
  float *h = nullptr;                 // out: o tanh(c)
  ActivationRows h_out;               // h quantized with the scale 1 / h_out_max, which is there
  Arithmetic h_out_arithmetic = Arithmetic::offset8;
  int32_t h_out_max = 127;
};

// Tiles begin .. end - 1 of a matrix: where it is block-sparse, whole windows of it.
struct TileRange {
  int64_t begin, end;
};

inline TileRange all_tiles(const Matrix &matrix) { return {0, matrix.num_tiles}; }

struct Kernels {
  // Quantizes v[0..n) for `target`: s = m / A, q = clamp(rint(v * (A / m)), -A, A), where m is
  // max(floor, max |v|). A non-finite v gives zeros with a NaN scale; m < 1e-30 zeros with scale 0.
  // For float32, q is v and its scale 1.
  void (*quantize_row)(const float *v, int64_t n, float floor, const Matrix &target, uint8_t *q,
                       float *scale);

  // out[row][tile][32] = fma(products, scale of x's row * scale of the weight row, bias) for a
  // range of tiles; bias as in the packed form, or null for none.
  void (*products)(const Matrix &matrix, TileRange tiles, const uint8_t *bias, int64_t rows,
                   const ActivationRows &x, float *out);

  // Recurrent products, gates, c, h and the quantization of h in one pass, for the units of a range
  // of tiles. A row of h with a NaN among them gets a NaN scale; other scales stay as they are.
  void (*step)(const Matrix &hh, TileRange tiles, const StepArguments &arguments);
};

} // namespace lstm_fastkernels
