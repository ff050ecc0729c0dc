#include "weights/packed_matrix.h"

#include <algorithm>
#include <iterator>

#include "common/numerics.h"
#include "weights/packed_int4.h"

namespace lstm_fastkernels {
namespace {

int64_t num_slices(const MatrixShape &shape) { return divide_up(shape.num_strips(), kSliceStrips); }

bool possible(Arithmetic arithmetic, Precision precision) {
  if (arithmetic == Arithmetic::pairs8)
    return precision == Precision{WeightType::int8, ActivationType::int8};
  return arithmetic == choose(precision, {false, false, 0});
}

} // namespace

Arithmetic choose(Precision precision, const Proof &proof) {
  if (is_table(precision))
    return precision.weights == WeightType::float16 ? Arithmetic::table16 : Arithmetic::table32;
  if (precision.weights == WeightType::float32)
    return Arithmetic::float32;
  if (precision.weights == WeightType::int4)
    return Arithmetic::int4;
  if (precision.activations == ActivationType::int16)
    return Arithmetic::signed16;
  return proof.pair_safe ? Arithmetic::pairs8 : Arithmetic::any8;
}

uint32_t row_sum_bytes(Arithmetic arithmetic, const Proof &proof) {
  if (!has_zero_points(arithmetic))
    return 0;
  return proof.short_sums && arithmetic != Arithmetic::int4 ? sizeof(int16_t) : sizeof(int32_t);
}

MatrixOffsets CpuLayout::place(Sections &sections, const MatrixShape &shape,
                               const MatrixRecord &record) {
  const Arithmetic arithmetic = static_cast<Arithmetic>(record.arithmetic);
  const int64_t rows = shape.num_tiles() * kTileRows;
  const int64_t slots = int64_t{record.positions} * kSliceStrips;
  MatrixOffsets at{};
  if (record.blocks) {
    at.slices = sections.add(num_slices(shape) * int64_t{sizeof(Slice)});
    at.columns = sections.add(slots * int64_t{sizeof(uint16_t)});
    at.blocks = sections.add(slots * block_bytes(arithmetic));
  } else {
    at.tiles = sections.add(rows * divide_up(shape.columns, columns_per_group(arithmetic)) *
                            group_bytes(arithmetic));
  }
  at.row_sums = sections.add(rows * record.row_sum_bytes);
  at.scales = sections.add(rows * record.scale_groups(shape) * int64_t{sizeof(float)});
  return at;
}

void CpuLayout::check(const MatrixShape &shape, const MatrixRecord &record) {
  const Arithmetic arithmetic = static_cast<Arithmetic>(record.arithmetic);
  precision_name(record.precision()); // throws where there is none
  if (!possible(arithmetic, record.precision()))
    fail("packed weights: unknown arithmetic " + std::to_string(record.arithmetic));
  const bool range_possible = arithmetic == Arithmetic::float32 || is_table(arithmetic)
                                  ? record.activation_max == 1
                              : arithmetic == Arithmetic::signed16
                                  ? record.activation_max >= 1 && record.activation_max <= 32767
                                  : record.activation_max == kUnsignedMax;
  if (!range_possible)
    fail("packed weights: activation range " + std::to_string(record.activation_max) +
         " is not possible");
  if (record.row_sum_bytes != row_sum_bytes(arithmetic, {true, true, 0}) &&
      record.row_sum_bytes != row_sum_bytes(arithmetic, {true, false, 0}))
    fail("packed weights: row sums of " + std::to_string(record.row_sum_bytes) +
         " bytes are not possible");
  if (arithmetic == Arithmetic::int4 ? !is_group_size(record.scale_columns) || record.blocks
                                     : record.scale_columns != 0)
    fail("packed weights: scales of " + std::to_string(record.scale_columns) +
         " columns are not possible");
  const int64_t most = num_slices(shape) * divide_up(shape.columns, kBlockColumns);
  if (record.blocks ? !is_block_shape(record.block_rows(), record.block_columns()) ||
                          record.positions > most || is_table(arithmetic)
                    : record.positions != 0)
    fail("packed weights: blocks of " + std::to_string(record.block_rows()) + " x " +
         std::to_string(record.block_columns()) + " with " + std::to_string(record.positions) +
         " positions are not possible");
}

Matrix view(const MatrixShape &shape, const MatrixRecord &record, const uint8_t *base,
            const MatrixOffsets &at) {
  Matrix matrix;
  matrix.precision = record.precision();
  matrix.arithmetic = static_cast<Arithmetic>(record.arithmetic);
  if (record.blocks) {
    matrix.slices = base + at.slices;
    matrix.columns = base + at.columns;
    matrix.blocks = base + at.blocks;
    matrix.block_rows = record.block_rows();
    matrix.block_columns = record.block_columns();
  } else {
    matrix.tiles = base + at.tiles;
  }
  matrix.row_sums = base + at.row_sums;
  matrix.wide_row_sums = record.row_sum_bytes == sizeof(int32_t);
  matrix.scales = base + at.scales;
  matrix.scale_columns = record.scale_columns;
  matrix.scale_groups = record.scale_groups(shape);
  matrix.num_tiles = shape.num_tiles();
  matrix.groups = divide_up(shape.columns, columns_per_group(matrix.arithmetic));
  matrix.positions = record.positions;
  matrix.activation_max = record.activation_max;
  return matrix;
}

MatrixPacker::MatrixPacker(const MatrixShape &shape, const WeightMatrix &source,
                           const std::string &name)
    : source_(shape, source, name) {
  const Arithmetic arithmetic = choose(source.precision, source_.proof());
  record_.weights = source.precision.weights;
  record_.activations = source.precision.activations;
  record_.arithmetic = static_cast<uint32_t>(arithmetic);
  record_.activation_max = activation_max(source.precision, source_.proof());
  record_.row_sum_bytes = row_sum_bytes(arithmetic, source_.proof());
  if (source_.is_int4())
    record_.scale_columns = static_cast<uint32_t>(source_.group_size());
  record_.set_blocks(source);
  if (record_.blocks)
    plan_slices();
}

std::vector<MatrixPacker::Block> MatrixPacker::blocks_of(int64_t strip) const {
  std::vector<Block> blocks;
  source_.for_each_block(strip, [&](const Panel &panel, int64_t k) {
    blocks.push_back({static_cast<uint16_t>((panel.first_column + k) / kBlockColumns),
                      panel.weights + k * source_.weight_bytes()});
  });
  return blocks;
}

void MatrixPacker::plan_slices() {
  constexpr int64_t kWindowStrips = kWindowTiles * kStripsPerTile;
  for (int64_t first = 0; first < source_.shape().num_strips(); first += kWindowStrips) {
    std::vector<Strip> window;
    for (int64_t strip = first;
         strip < std::min(source_.shape().num_strips(), first + kWindowStrips); ++strip)
      window.push_back({strip, blocks_of(strip)});
    std::stable_sort(window.begin(), window.end(), [](const Strip &a, const Strip &b) {
      return a.blocks.size() > b.blocks.size();
    });
    for (size_t i = 0; i < window.size(); i += kSliceStrips) {
      const auto begin = std::make_move_iterator(window.begin() + static_cast<int64_t>(i));
      const size_t count = std::min<size_t>(kSliceStrips, window.size() - i);
      slices_.emplace_back(begin, begin + static_cast<int64_t>(count));
      record_.positions += static_cast<uint32_t>(slices_.back().front().blocks.size());
    }
  }
}

void MatrixPacker::write(uint8_t *base, const MatrixOffsets &at) const {
  if (source_.is_int4())
    return write_int4(base, at);
  if (record_.blocks)
    write_slices(base + at.slices, base + at.columns, base + at.blocks);
  else if (is_table(arithmetic()))
    write_table(base + at.tiles);
  else
    write_tiles(base + at.tiles);
  const auto row_sum = [&](int64_t row) { return source_.row_sums()[static_cast<size_t>(row)]; };
  if (record_.row_sum_bytes == sizeof(int16_t))
    write_rows<int16_t>(base + at.row_sums, source_.shape(), kStripRows,
                        [&](int64_t row) { return static_cast<int16_t>(row_sum(row)); });
  else if (record_.row_sum_bytes)
    write_rows<int32_t>(base + at.row_sums, source_.shape(), kStripRows, row_sum);
  write_rows<float>(base + at.scales, source_.shape(), kStripRows,
                    [&](int64_t row) { return source_.scale(row); });
}

void MatrixPacker::write_tiles(uint8_t *tiles) const {
  const int64_t size = source_.weight_bytes();
  const int64_t tile_bytes =
      kTileRows * round_up(source_.shape().columns, columns_per_group(arithmetic())) * size;
  for (int64_t strip = 0; strip < source_.shape().num_strips(); ++strip)
    source_.for_each_panel(strip, [&](const Panel &panel) {
      for (int64_t i = 0; i < panel.rows; ++i) {
        const int64_t position = strip % kStripsPerTile * kStripRows + i;
        uint8_t *tile = tiles + strip / kStripsPerTile * tile_bytes;
        const uint8_t *from = panel.weights + i * source_.stride() * size;
        for (int64_t k = 0; k < panel.columns; ++k)
          std::memcpy(tile + weight_in_tile(arithmetic(), position, k) * size, from + k * size,
                      static_cast<size_t>(size));
      }
    });
}

void MatrixPacker::write_table(uint8_t *table) const {
  const MatrixShape &shape = source_.shape();
  const int64_t size = weight_bytes(arithmetic()), rows = shape.num_tiles() * kTileRows;
  for (int64_t strip = 0; strip < shape.num_strips(); ++strip)
    for (int64_t id = 0; id < shape.columns; ++id)
      std::memcpy(table + (id * rows + strip * kStripRows) * size,
                  source_.table_row(id, size) + shape.strip_start(strip) * size,
                  static_cast<size_t>(shape.strip_rows(strip) * size));
}

void MatrixPacker::write_int4(uint8_t *base, const MatrixOffsets &at) const {
  const MatrixShape &shape = source_.shape();
  const int64_t tile_bytes = round_up(shape.columns, 4) / 4 * kTileRows * group_bytes(arithmetic());
  uint8_t *const tiles = base + at.tiles;
  std::fill_n(tiles, shape.num_tiles() * tile_bytes, kInt4Zeros);
  for (int64_t strip = 0; strip < shape.num_strips(); ++strip)
    source_.for_each_panel(strip, [&](const Panel &panel) {
      for (int64_t i = 0; i < panel.rows; ++i) {
        const int64_t tile = strip / kStripsPerTile;
        const int64_t position = strip % kStripsPerTile * kStripRows + i;
        const int8_t *from = reinterpret_cast<const int8_t *>(panel.weights) + i * source_.stride();
        for (int64_t k = 0; k < panel.columns; ++k)
          lstm_fastkernels::write_int4(tiles + tile * tile_bytes, position, k, from[k]);
      }
    });
  write_row_values<float>(
      base + at.scales, shape, kStripRows, source_.scale_groups(),
      [&](int64_t row, int64_t group) { return source_.group_scale(row, group); });
  write_rows<float>(base + at.row_sums, shape, kStripRows,
                    [&](int64_t row) { return source_.int4_row_sum(row); });
}

void MatrixPacker::write_slices(uint8_t *slices, uint8_t *columns, uint8_t *blocks) const {
  uint32_t start = 0;
  for (size_t n = 0; n < slices_.size(); ++n) {
    const std::vector<Strip> &strips = slices_[n];
    Slice slice{start, static_cast<uint32_t>(strips.front().blocks.size()), {}};
    for (size_t s = 0; s < kSliceStrips; ++s) {
      const Strip &strip = strips[std::min(s, strips.size() - 1)];
      slice.strips[s] = static_cast<uint8_t>(strip.index % (kWindowTiles * kStripsPerTile));
      for (size_t i = 0; i < strip.blocks.size(); ++i) {
        const int64_t slot = static_cast<int64_t>((start + i) * kSliceStrips + s);
        lstm_fastkernels::write(columns, slot, strip.blocks[i].column);
        write_block(strip.index, strip.blocks[i], blocks + slot * block_bytes(arithmetic()));
      }
    }
    lstm_fastkernels::write(slices, static_cast<int64_t>(n), slice);
    start += slice.length;
  }
}

void MatrixPacker::write_block(int64_t strip, const Block &from, uint8_t *block) const {
  const int64_t size = source_.weight_bytes();
  const int64_t left = source_.shape().columns - int64_t{from.column} * kBlockColumns;
  for (int64_t i = 0; i < source_.shape().strip_rows(strip); ++i)
    for (int64_t k = 0; k < std::min<int64_t>(kBlockColumns, left); ++k)
      std::memcpy(block + weight_in_block(arithmetic(), i, k) * size,
                  from.weights + (i * source_.stride() + k) * size, static_cast<size_t>(size));
}

} // namespace lstm_fastkernels
