// The reference: plain loops over the packed layout, the numeric contract spelled out. Every other
// instruction set must give the same bits.
#include <cmath>
#include <type_traits>

#include "common/numerics.h"
#include "common/workspace.h"
#include "kernels/implementations.h"

namespace lstm_fastkernels {
namespace scalar {
namespace {

// What a quantized value is, as a float or as an integer.
void store(uint8_t *q, int64_t i, Arithmetic arithmetic, int32_t max, float value,
           float inverse_scale) {
  if (arithmetic == Arithmetic::float32) {
    const float kept = std::isnan(value) ? 0.0f : value;
    std::memcpy(q + 4 * i, &kept, sizeof kept);
    return;
  }
  const int32_t integer = quantize(value, inverse_scale, max);
  if (arithmetic == Arithmetic::signed16) {
    const int16_t wide = static_cast<int16_t>(integer);
    std::memcpy(q + 2 * i, &wide, sizeof wide);
  } else {
    q[i] = static_cast<uint8_t>(arithmetic == Arithmetic::offset8 ? integer + 128 : integer);
  }
}

int32_t load(const uint8_t *q, int64_t i, Arithmetic arithmetic) {
  if (arithmetic == Arithmetic::signed16)
    return read<int16_t>(q, i);
  return arithmetic == Arithmetic::offset8 ? q[i] - 128 : static_cast<int8_t>(q[i]);
}

void quantize_row(const float *v, int64_t n, float floor, const Matrix &target, uint8_t *q,
                  float *scale) {
  const int64_t padded = round_up(n, kTileUnits);
  float m = floor;
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) {
    finite = finite && std::isfinite(v[i]);
    m = std::fabs(v[i]) > m ? std::fabs(v[i]) : m;
  }
  if (target.arithmetic == Arithmetic::float32)
    m = 1.0f; // nothing to scale
  const RowScale by = scale_row(m, finite, target.activation_max);
  *scale = by.scale;
  for (int64_t i = 0; i < padded; ++i)
    store(q, i, target.arithmetic, target.activation_max, finite && i < n ? v[i] : 0.0f,
          by.inverse);
}

// Adds the products of one row's share in a group of columns to its sum, an integer or a float.
template <class Sum>
void accumulate(Sum &sum, const Matrix &matrix, const uint8_t *weights, const uint8_t *q,
                int64_t column) {
  for (int64_t k = 0; k < columns_per_group(matrix.arithmetic); ++k) {
    if constexpr (std::is_same_v<Sum, float>)
      sum = std::fma(read<float>(weights, k), read<float>(q, column + k), sum);
    else
      sum += static_cast<int8_t>(weights[k]) * load(q, column + k, matrix.arithmetic);
  }
}

template <class Sum> Sum dense_sum(const Matrix &matrix, int64_t row, const uint8_t *q) {
  const int64_t width = columns_per_group(matrix.arithmetic) * weight_bytes(matrix.arithmetic);
  const uint8_t *tile = matrix.tiles + row / kTileRows * matrix.tile_bytes();
  Sum sum = 0;
  for (int64_t group = 0; group < matrix.groups; ++group)
    accumulate(sum, matrix, tile + (group * kTileRows + row % kTileRows) * width, q,
               group * columns_per_group(matrix.arithmetic));
  return sum;
}

// Row `row` of strip `strip` of a slice.
template <class Sum>
Sum sparse_sum(const Matrix &matrix, const Slice &slice, int64_t strip, int64_t row,
               const uint8_t *q) {
  const int64_t columns = columns_per_group(matrix.arithmetic);
  const int64_t width = columns * weight_bytes(matrix.arithmetic);
  Sum sum = 0;
  for (int64_t position = slice.start; position < slice.start + slice.length; ++position) {
    const int64_t slot = position * kSliceStrips + strip;
    const int64_t first = int64_t{read<uint16_t>(matrix.columns, slot)} * kBlockColumns;
    const uint8_t *block = matrix.blocks + slot * block_bytes(matrix.arithmetic);
    for (int64_t group = 0; group < kBlockColumns / columns; ++group)
      accumulate(sum, matrix, block + (group * kStripRows + row) * width, q,
                 first + group * columns);
  }
  return sum;
}

// The sums of all rows of some tiles, as floats, each at its place among those of all tiles.
template <class Sum>
void tile_sums(const Matrix &matrix, TileRange tiles, const uint8_t *q, float *sums) {
  if (!matrix.is_sparse()) {
    for (int64_t row = tiles.begin * kTileRows; row < tiles.end * kTileRows; ++row)
      sums[row] = static_cast<float>(dense_sum<Sum>(matrix, row, q));
    return;
  }
  constexpr int64_t kWindowSlices = kWindowTiles * kStripsPerTile / kSliceStrips;
  const int64_t first = tiles.begin * kStripsPerTile / kSliceStrips;
  const int64_t end = divide_up(tiles.end * kStripsPerTile, kSliceStrips);
  for (int64_t i = first; i < end; ++i) {
    const Slice slice = read<Slice>(matrix.slices, i);
    for (int64_t strip = 0; strip < kSliceStrips; ++strip) {
      float *out =
          sums + i / kWindowSlices * kWindowTiles * kTileRows + slice.strips[strip] * kStripRows;
      for (int64_t row = 0; row < kStripRows; ++row)
        out[row] = static_cast<float>(sparse_sum<Sum>(matrix, slice, strip, row, q));
    }
  }
}

void sum_row(const Matrix &matrix, TileRange tiles, const uint8_t *q, float *sums) {
  if (matrix.arithmetic == Arithmetic::float32)
    tile_sums<float>(matrix, tiles, q, sums);
  else
    tile_sums<int32_t>(matrix, tiles, q, sums);
}

void products(const Matrix &matrix, TileRange tiles, const uint8_t *bias, int64_t rows,
              const ActivationRows &x, float *out) {
  const int64_t width = matrix.num_tiles * kTileRows;
  for (int64_t row = 0; row < rows; ++row, out += width) {
    sum_row(matrix, tiles, x.from(row).data, out);
    for (int64_t i = tiles.begin * kTileRows; i < tiles.end * kTileRows; ++i)
      out[i] = std::fma(out[i], x.scales[row] * read<float>(matrix.scales, i),
                        bias ? read<float>(bias, i) : -0.0f); // adding -0 changes nothing
  }
}

void step(const Matrix &hh, TileRange tiles, const StepArguments &a) {
  const float max = static_cast<float>(a.h_out_max);
  const int64_t width = hh.num_tiles * kTileRows;
  Workspace memory;
  float *sums = memory.allocate<float>(width);
  for (int64_t row = 0; row < a.rows; ++row) {
    const ActivationRows out = a.h_out.from(row);
    sum_row(hh, tiles, a.h_in.from(row).data, sums);
    for (int64_t unit = tiles.begin * kTileUnits; unit < tiles.end * kTileUnits; ++unit) {
      float gates[4];
      for (int64_t g = 0; g < 4; ++g) {
        const int64_t i = unit / kTileUnits * kTileRows + g * kTileUnits + unit % kTileUnits;
        gates[g] = std::fma(sums[i], a.h_in.scales[row] * read<float>(hh.scales, i),
                            a.input_gates[row * width + i]);
      }
      const int64_t at = row * hh.num_tiles * kTileUnits + unit;
      const float h = a.h[at] = update_cell(gates, a.c[at]);
      if (std::isnan(h))
        *out.scales = NAN;
      store(out.data, unit, a.h_out_arithmetic, a.h_out_max, h, max);
    }
  }
}

bool runs_here() { return true; }

} // namespace

extern const Implementation kImplementation = {"scalar", runs_here, {quantize_row, products, step}};

} // namespace scalar
} // namespace lstm_fastkernels
