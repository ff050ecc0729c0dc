// Checks the CPU's form of a matrix: whatever kernels take for an index, a length or proven.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "weights/packed_contents.h"
#include "weights/packed_int4.h"
#include "weights/packed_matrix.h"
#include "weights/packed_table.h"
#include "weights/weight_scan.h"

namespace lstm_fastkernels {
namespace {

void check_padding(const PackedRows &rows, const uint8_t *weights, int64_t bytes) {
  if (!all_zero(weights, bytes, 1))
    refuse_packed(rows.name(), "weights of padding must be zero");
}

// A scan's unit is a group of a tile's 32 rows.
template <class Scan> void scan_tiles(const Matrix &m, Scan &scan, PackedRows &rows) {
  const int64_t width = group_bytes(m.arithmetic);
  const int64_t rest = rows.shape().columns % columns_per_group(m.arithmetic);
  for (int64_t tile = 0; tile < m.num_tiles; ++tile) {
    const uint8_t *const groups = m.tiles + tile * m.tile_bytes();
    for (int64_t group = 0; group < m.groups; ++group)
      scan.add(groups + group * Scan::kBytes);
    rows.take(scan, [&](int64_t byte) { return tile * kTileRows + byte / width; });
    const uint8_t *const last = groups + (m.groups - 1) * Scan::kBytes;
    for (int64_t row = 0; rest && row < kTileRows; ++row)
      check_padding(rows, last + row * width + rest, width - rest);
  }
}

// A strip's blocks lie from left to right; zeros behind them, of column 0, fill it up.
class StripOrder {
public:
  void check(const PackedRows &rows, int64_t column, bool zero) {
    if (zero ? column != 0 : filled_ || column <= last_)
      refuse_packed(rows.name(),
                    "blocks of a strip must lie from left to right, zeros behind them");
    filled_ = zero;
    last_ = column;
  }

private:
  int64_t last_ = -1;
  bool filled_ = false;
};

void check_block(const Matrix &m, const PackedRows &rows, int64_t slot, StripOrder &order) {
  const int64_t width = rows.shape().columns, size = weight_bytes(m.arithmetic);
  const uint8_t *const block = m.blocks + slot * block_bytes(m.arithmetic);
  const int64_t column = read<uint16_t>(m.columns, slot), left = width - column * kBlockColumns;
  if (left <= 0)
    refuse_packed(rows.name(), "column " + std::to_string(column * kBlockColumns) +
                                   " is not among its " + std::to_string(width));
  for (int64_t k = left; k < kBlockColumns; ++k)
    for (int64_t i = 0; i < kStripRows; ++i)
      check_padding(rows, block + weight_in_block(m.arithmetic, i, k) * size, size);
  order.check(rows, column, all_zero(block, kStripRows * kBlockColumns, size));
}

// Slots past the strips that a slice has repeat its last one.
void check_repeated(const Matrix &m, const PackedRows &rows, int64_t slot) {
  const int64_t bytes = block_bytes(m.arithmetic);
  const uint8_t *const block = m.blocks + slot * bytes;
  if (read<uint16_t>(m.columns, slot) != read<uint16_t>(m.columns, slot - 1) ||
      std::memcmp(block, block - bytes, static_cast<size_t>(bytes)) != 0)
    refuse_packed(rows.name(), "a repeated strip must be the same");
}

// The strips of a window, each to be taken once.
class WindowStrips {
public:
  explicit WindowStrips(int64_t count) : count_(count) {}
  int64_t left() const { return count_ - taken_; }
  void take(const PackedRows &rows, const Slice &slice) {
    const int64_t count = std::min<int64_t>(left(), kSliceStrips);
    for (int64_t s = 0; s < kSliceStrips; ++s) {
      const uint64_t bit = uint64_t{1} << slice.strips[s] % 64;
      if (s < count ? slice.strips[s] >= count_ || seen_ & bit
                    : slice.strips[s] != slice.strips[s - 1])
        refuse_packed(rows.name(), "slices must take each strip of a window once");
      seen_ |= bit;
    }
    taken_ += count;
  }

private:
  const int64_t count_;
  int64_t taken_ = 0;
  uint64_t seen_ = 0;
};

// A scan's unit is the 8 blocks of a position.
template <class Scan> void scan_slices(const Matrix &m, Scan &scan, PackedRows &rows) {
  constexpr int64_t kWindowStrips = kWindowTiles * kStripsPerTile;
  const int64_t bytes = block_bytes(m.arithmetic),
                row_bytes = weight_in_block(m.arithmetic, 1, 0) * weight_bytes(m.arithmetic);
  const int64_t strips = rows.shape().num_strips();
  int64_t n = 0, next = 0;
  for (int64_t first = 0; first < strips; first += kWindowStrips)
    for (WindowStrips window(std::min(strips - first, kWindowStrips)); window.left() > 0;) {
      const Slice slice = read<Slice>(m.slices, n++);
      if (slice.start != next || slice.length > m.positions - next)
        refuse_packed(rows.name(), "slices must follow each other within its " +
                                       std::to_string(m.positions) + " positions");
      const int64_t count = std::min<int64_t>(window.left(), kSliceStrips);
      window.take(rows, slice);
      StripOrder orders[kSliceStrips];
      for (; next < int64_t{slice.start} + slice.length; ++next) {
        scan.add(m.blocks + next * Scan::kBytes);
        for (int64_t s = 0; s < count; ++s)
          check_block(m, rows, next * kSliceStrips + s, orders[s]);
        for (int64_t s = count; s < kSliceStrips; ++s)
          check_repeated(m, rows, next * kSliceStrips + s);
      }
      rows.take(scan, [&](int64_t byte) {
        const int64_t s = byte / bytes;
        return s < count ? (first + slice.strips[s]) * kStripRows + byte / row_bytes % kStripRows
                         : -1;
      });
    }
  if (next != m.positions)
    refuse_packed(rows.name(),
                  "slices must take all of its " + std::to_string(m.positions) + " positions");
}

// Of 4-bit weights: what is padding, and what a zero point multiplies.
void check_int4(const Matrix &m, const PackedRows &rows) {
  const MatrixShape &shape = rows.shape();
  const int64_t columns = m.groups * kBlockColumns;
  rows.check_scales(m.scales, false, m.scale_groups);
  for (int64_t i = 0; i < rows.count(); ++i) {
    const int64_t tile = i / kTileRows, position = i % kTileRows;
    const bool padding = shape.source_row(tile, position) < 0;
    const uint8_t *const weights = m.tiles + tile * m.tile_bytes();
    for (int64_t k = padding ? 0 : shape.columns; k < columns; ++k)
      if (int4_weight(weights, position, k) != 0)
        refuse_packed(rows.name(), "weights of padding must be zero");
    const auto weight_sum = [&](int64_t group) {
      int sum = 0;
      for (int64_t k = group * m.scale_columns;
           k < std::min((group + 1) * m.scale_columns, columns); ++k)
        sum += int4_weight(weights, position, k);
      return sum;
    };
    const auto scale = [&](int64_t group) {
      return read<float>(m.scales, (tile * m.scale_groups + group) * kTileRows + position);
    };
    if (read<float>(m.row_sums, i) != int4_row_sum(m.scale_groups, weight_sum, scale))
      refuse_packed(rows.name(), "its row sums are not those of its weights");
  }
}

void check_table(const Matrix &m, const PackedRows &rows) {
  rows.check_scales(m.scales, true);
  const MatrixShape &shape = rows.shape();
  for (int64_t strip = 0; strip < shape.num_strips(); ++strip)
    for (int64_t id = 0; id < shape.columns; ++id)
      for (int64_t i = 0; i < kStripRows; ++i) {
        const float value = table_value(m, id * rows.count() + strip * kStripRows + i);
        if (!std::isfinite(value))
          refuse_packed(rows.name(), "weights must be finite");
        if (i >= shape.strip_rows(strip) && value != 0)
          refuse_packed(rows.name(), "weights of padding must be zero");
      }
}

template <class Scan, class Walk> Proof prove(const Matrix &m, PackedRows &rows, const Walk &walk) {
  Scan scan;
  walk(m, scan, rows);
  return rows.prove(scan);
}

Proof prove(const Matrix &m, PackedRows &rows) {
  const auto tiles = [](auto &...of) { scan_tiles(of...); };
  const auto slices = [](auto &...of) { scan_slices(of...); };
  constexpr int kSlots = kSliceStrips * kStripRows * kBlockColumns;
  if (m.arithmetic == Arithmetic::float32)
    return m.is_sparse()
               ? prove<FloatScan<kSlots * 4>>(m, rows, slices)
               : prove<FloatScan<kTileRows * group_bytes(Arithmetic::float32)>>(m, rows, tiles);
  if (m.is_sparse())
    return prove<IntegerScan<kSlots>>(m, rows, slices);
  if (m.arithmetic == Arithmetic::signed16)
    return prove<IntegerScan<kTileRows * group_bytes(Arithmetic::signed16)>>(m, rows, tiles);
  return prove<IntegerScan<kTileRows * group_bytes(Arithmetic::any8)>>(m, rows, tiles);
}

} // namespace

void check_contents(const Matrix &m, const MatrixShape &shape, const std::string &name) {
  PackedRows rows(name, shape, kStripRows);
  if (m.arithmetic == Arithmetic::int4)
    return check_int4(m, rows);
  if (is_table(m.arithmetic))
    return check_table(m, rows);
  const Proof proof = prove(m, rows);
  if (m.arithmetic != choose(m.precision, proof))
    refuse_packed(name, "its weights need another arithmetic");
  if (m.activation_max != activation_max(m.precision, proof))
    refuse_packed(name, "its weights need another activation range");
  const uint32_t bytes = row_sum_bytes(m.arithmetic, proof);
  if (bytes && m.wide_row_sums != (bytes == sizeof(int32_t)))
    refuse_packed(name, "its weights need row sums of another width");
  for (int64_t i = 0; bytes && i < rows.count(); ++i)
    if ((m.wide_row_sums ? read<int32_t>(m.row_sums, i) : read<int16_t>(m.row_sums, i)) !=
        rows[i].sum)
      refuse_packed(name, "its row sums are not those of its weights");
  rows.check_scales(m.scales, m.arithmetic == Arithmetic::float32);
}

} // namespace lstm_fastkernels
