// The reference: plain loops over the packed layout, the numeric contract spelled out. Every other
// instruction set must give the same bits.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <type_traits>

#include "common/numerics.h"
#include "kernels/implementations.h"
#include "weights/packed_int4.h"
#include "weights/packed_table.h"

namespace lstm_fastkernels {
namespace scalar {
namespace {

int32_t load(const uint8_t *q, int64_t i, Arithmetic arithmetic) {
  return arithmetic == Arithmetic::signed16 ? read<int16_t>(q, i) : q[i];
}

template <class T> void store(uint8_t *q, int64_t i, T value) {
  std::memcpy(q + i * int64_t{sizeof value}, &value, sizeof value);
}

// Zeros behind the last activation, and what the offset of the weights adds to their groups.
void end_int4_row(int64_t n, const Matrix &target, uint8_t *q) {
  const int64_t padded = padded_columns(target.arithmetic, n);
  std::fill(q + n, q + padded, uint8_t{0});
  for (int64_t group = 0; group < target.scale_groups; ++group) {
    const uint8_t *const begin = q + group * target.scale_columns;
    const uint8_t *const end = q + std::min((group + 1) * target.scale_columns, padded);
    const int32_t sum = std::accumulate(begin, end, 0);
    store(q + padded, group, kInt4Zero * sum);
  }
}

void quantize_row(const float *v, int64_t n, RowKind kind, const Matrix &target,
                  const ActivationRows &row) {
  float lo = 0.0f, hi = 0.0f;
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) {
    finite = finite && std::isfinite(v[i]);
    lo = v[i] < lo ? v[i] : lo;
    hi = v[i] > hi ? v[i] : hi;
  }
  const bool is_float = target.arithmetic == Arithmetic::float32;
  const RowQuantizer to =
      quantizer(lo, hi, finite, kind, has_zero_points(target.arithmetic), target.activation_max);
  *row.scales = is_float && finite ? 1.0f : to.scale;
  *row.zero_points = to.zero_point;
  const int64_t padded = padded_columns(target.arithmetic, n);
  for (int64_t i = 0; i < padded; ++i) {
    const float value = finite && i < n ? v[i] : 0.0f;
    if (is_float)
      store(row.data, i, value);
    else if (target.arithmetic == Arithmetic::signed16)
      store(row.data, i, static_cast<int16_t>(to(value)));
    else
      store(row.data, i, static_cast<uint8_t>(to(value)));
  }
  if (target.arithmetic == Arithmetic::int4)
    end_int4_row(n, target, row.data);
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

// What a zero point adds to the sum of a row.
int32_t offset(const Matrix &matrix, int64_t row, int32_t zero_point) {
  if (!has_zero_points(matrix.arithmetic))
    return 0;
  return zero_point * (matrix.wide_row_sums ? read<int32_t>(matrix.row_sums, row)
                                            : read<int16_t>(matrix.row_sums, row));
}

// The value of a row's products with 4-bit weights, without the scale of the activations.
float int4_sum(const Matrix &matrix, int64_t row, const uint8_t *q, int32_t zero_point) {
  const uint8_t *const tile = matrix.tiles + row / kTileRows * matrix.tile_bytes();
  const int64_t columns = matrix.groups * kBlockColumns;
  float value = static_cast<float>(-zero_point) * read<float>(matrix.row_sums, row);
  for (int64_t group = 0; group < matrix.scale_groups; ++group) {
    int32_t sum = 0;
    for (int64_t k = group * matrix.scale_columns;
         k < std::min((group + 1) * matrix.scale_columns, columns); ++k)
      sum += int4_weight(tile, row % kTileRows, k) * q[k];
    const int64_t scale = (row / kTileRows * matrix.scale_groups + group) * kTileRows;
    value = std::fma(static_cast<float>(sum), read<float>(matrix.scales, scale + row % kTileRows),
                     value);
  }
  return value;
}

// The sums of all rows of some tiles, as floats.
template <class Sum>
void tile_sums(const Matrix &matrix, TileRange tiles, const ActivationRows &x, float *sums) {
  const auto put = [&](int64_t row, Sum sum) {
    sums[row - tiles.begin * kTileRows] =
        static_cast<float>(sum - static_cast<Sum>(offset(matrix, row, *x.zero_points)));
  };
  if (!matrix.is_sparse()) {
    for (int64_t row = tiles.begin * kTileRows; row < tiles.end * kTileRows; ++row)
      put(row, dense_sum<Sum>(matrix, row, x.data));
    return;
  }
  constexpr int64_t kWindowSlices = kWindowTiles * kStripsPerTile / kSliceStrips;
  const int64_t first = tiles.begin * kStripsPerTile / kSliceStrips;
  const int64_t end = divide_up(tiles.end * kStripsPerTile, kSliceStrips);
  for (int64_t i = first; i < end; ++i) {
    const Slice slice = read<Slice>(matrix.slices, i);
    for (int64_t strip = 0; strip < kSliceStrips; ++strip) {
      const int64_t first =
          i / kWindowSlices * kWindowTiles * kTileRows + slice.strips[strip] * kStripRows;
      for (int64_t row = 0; row < kStripRows; ++row)
        put(first + row, sparse_sum<Sum>(matrix, slice, strip, row, x.data));
    }
  }
}

// Of what tile_sums gives; the scales of 4-bit weights are in it.
float row_scale(const Matrix &matrix, int64_t row) {
  return matrix.arithmetic == Arithmetic::int4 ? 1.0f : read<float>(matrix.scales, row);
}

// Of the first row of x.
void sum_row(const Matrix &matrix, TileRange tiles, const ActivationRows &x, float *sums) {
  if (matrix.arithmetic == Arithmetic::int4)
    for (int64_t row = tiles.begin * kTileRows; row < tiles.end * kTileRows; ++row)
      sums[row - tiles.begin * kTileRows] = int4_sum(matrix, row, x.data, *x.zero_points);
  else if (matrix.arithmetic == Arithmetic::float32)
    tile_sums<float>(matrix, tiles, x, sums);
  else
    tile_sums<int32_t>(matrix, tiles, x, sums);
}

void products(const Matrix &matrix, TileRange tiles, const uint8_t *bias, int64_t rows,
              const ActivationRows &x, TileRows<float> out) {
  const int64_t begin = tiles.begin * kTileRows, end = tiles.end * kTileRows;
  for (int64_t row = 0; row < rows; ++row) {
    float *const sums = out.first + row * out.stride;
    sum_row(matrix, tiles, x.from(row), sums);
    for (int64_t i = begin; i < end; ++i)
      sums[i - begin] = std::fma(sums[i - begin], x.scales[row] * row_scale(matrix, i),
                                 bias ? read<float>(bias, i) : -0.0f); // adding -0 changes nothing
  }
}

void look_up(const Matrix &table, TileRange tiles, int64_t id, const uint8_t *bias, float *gates) {
  const int64_t begin = tiles.begin * kTileRows, end = tiles.end * kTileRows;
  for (int64_t i = begin; i < end; ++i)
    gates[i - begin] =
        table_value(table, id * table.num_tiles * kTileRows + i) + read<float>(bias, i);
}

// At most a window of tiles.
void step_row(const Matrix &hh, TileRange tiles, int64_t row, const float *input_gates,
              const StepArguments &a) {
  float sums[kWindowTiles * kTileRows];
  sum_row(hh, tiles, a.h_in.from(row), sums);
  for (int64_t unit = tiles.begin * kTileUnits; unit < tiles.end * kTileUnits; ++unit) {
    float gates[4];
    for (int64_t g = 0; g < 4; ++g) {
      const int64_t i = unit / kTileUnits * kTileRows + g * kTileUnits + unit % kTileUnits;
      gates[g] = std::fma(sums[i - tiles.begin * kTileRows], a.h_in.scales[row] * row_scale(hh, i),
                          input_gates[i - tiles.begin * kTileRows]);
    }
    const int64_t at = row * hh.num_tiles * kTileUnits + unit;
    a.h[at] = update_cell(gates, a.c[at]);
  }
}

void step(const Matrix &hh, TileRange tiles, const StepArguments &a) {
  for (int64_t tile = tiles.begin; tile < tiles.end; tile += kWindowTiles)
    for (int64_t row = 0; row < a.rows; ++row)
      step_row(hh, {tile, std::min(tile + kWindowTiles, tiles.end)}, row,
               a.input_gates.first + row * a.input_gates.stride + (tile - tiles.begin) * kTileRows,
               a);
}

bool runs_here() { return true; }

} // namespace

extern const Implementation kImplementation = {
    "scalar", runs_here, {quantize_row, products, look_up, step}};

} // namespace scalar
} // namespace lstm_fastkernels
