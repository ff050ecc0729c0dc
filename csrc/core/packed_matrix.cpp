#include "packed_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iterator>
#include <limits>

#include "fail.h"

namespace lstm_fastkernels {
namespace {

constexpr int64_t kMaxBlock = 65535;
constexpr int32_t kInt32Max = std::numeric_limits<int32_t>::max();

// A matrix in blocks has its gates padded to whole blocks, each by itself.
struct BlockGrid {
  int64_t gates, gate_rows, block_rows_a_gate, blocks_a_row;

  BlockGrid(const MatrixShape &shape, const WeightMatrix &source)
      : gates(shape.gates ? 4 : 1), gate_rows(shape.rows / gates),
        block_rows_a_gate(divide_up(gate_rows, source.block_rows)),
        blocks_a_row(divide_up(shape.columns, source.block_columns)) {}
  int64_t block_rows() const { return gates * block_rows_a_gate; }
};

std::string at_block(int64_t block, int64_t block_row) {
  return ", block " + std::to_string(block) + " of block row " + std::to_string(block_row);
}

void check_block_shape(const WeightMatrix &source, const std::string &name) {
  if (source.block_rows % kStripRows || source.block_columns % kBlockColumns ||
      source.block_rows < 1 || source.block_columns < 1 || source.block_rows > kMaxBlock ||
      source.block_columns > kMaxBlock)
    fail(name + ": blocks must have a multiple of 8 rows and a multiple of 4 columns, got " +
         std::to_string(source.block_rows) + " x " + std::to_string(source.block_columns));
}

void check_indices(const BlockGrid &grid, const WeightMatrix &source, const std::string &name) {
  const int32_t *crow = source.crow_indices;
  if (crow[0] != 0)
    fail(name + "_crow_indices must start with 0, got " + std::to_string(crow[0]));
  for (int64_t r = 0; r < grid.block_rows(); ++r)
    if (crow[r + 1] < crow[r] || crow[r + 1] > source.num_blocks)
      fail(name + "_crow_indices must not decrease nor exceed the " +
           std::to_string(source.num_blocks) + " blocks, got " + std::to_string(crow[r + 1]) +
           " after " + std::to_string(crow[r]));
  if (crow[grid.block_rows()] != source.num_blocks)
    fail(name + "_crow_indices must end with the number of blocks, " +
         std::to_string(source.num_blocks) + ", got " + std::to_string(crow[grid.block_rows()]));
  for (int64_t r = 0; r < grid.block_rows(); ++r)
    for (int64_t b = crow[r]; b < crow[r + 1]; ++b) {
      const int64_t column = source.col_indices[b];
      if (column < 0 || column >= grid.blocks_a_row)
        fail(name + "_col_indices must be in 0.." + std::to_string(grid.blocks_a_row - 1) +
             ", got " + std::to_string(column) + at_block(b, r));
      if (b > crow[r] && column <= source.col_indices[b - 1])
        fail(name + "_col_indices must increase within a block row, got " + std::to_string(column) +
             " after " + std::to_string(source.col_indices[b - 1]) + at_block(b, r));
    }
}

// Of `count` weights of `size` bytes. -0 is what a mask leaves of a negative float.
bool all_zero(const uint8_t *weights, int64_t count, int64_t size) {
  if (size == 1)
    return std::all_of(weights, weights + count, [](uint8_t weight) { return weight == 0; });
  for (int64_t i = 0; i < count; ++i)
    if (read<float>(weights, i) != 0.0f)
      return false;
  return true;
}

// Refuses bad blocks and indices, and padding that is not zero.
void check_blocks(const MatrixShape &shape, const WeightMatrix &source, int64_t size,
                  const std::string &name) {
  check_block_shape(source, name);
  const BlockGrid grid(shape, source);
  check_indices(grid, source, name);
  const uint8_t *row = static_cast<const uint8_t *>(source.weights);
  for (int64_t r = 0; r < grid.block_rows(); ++r) {
    const int64_t rows = grid.gate_rows - r % grid.block_rows_a_gate * source.block_rows;
    for (int64_t b = source.crow_indices[r]; b < source.crow_indices[r + 1]; ++b) {
      const int64_t columns = std::min(
          source.block_columns, shape.columns - source.col_indices[b] * source.block_columns);
      for (int64_t i = 0; i < source.block_rows; ++i, row += source.block_columns * size) {
        const int64_t valid = i < rows ? columns : 0;
        if (!all_zero(row + valid * size, source.block_columns - valid, size))
          fail(name + "_values must be zero in the padding" + at_block(b, r));
      }
    }
  }
}

// What the weights of a matrix allow.
struct Proof {
  bool pair_safe = true;     // -128 <= w[2k] + w[2k + 1] <= 128 in every row
  bool short_sums = true;    // every row's sum fits int16
  int64_t max_magnitude = 0; // max over rows of sum |w|
};

MatrixRecord choose(const Proof &proof, int activation_bits) {
  if (activation_bits == 8) {
    const Form form = proof.pair_safe && proof.short_sums ? Form::offset8 : Form::signed8;
    return {static_cast<uint32_t>(form), 127, 0, 0};
  }
  // The largest A for which no sum of products can leave int32.
  const int64_t limit = kInt32Max / std::max<int64_t>(1, proof.max_magnitude);
  return {static_cast<uint32_t>(Form::signed16),
          static_cast<int32_t>(std::min<int64_t>(32767, limit)), 0, 0};
}

int64_t num_slices(const MatrixShape &shape) {
  return divide_up(shape.num_tiles() * kStripsPerTile, kSliceStrips);
}

} // namespace

int64_t count_block_rows(int64_t rows, int64_t gates, int64_t block_rows, const std::string &name) {
  if (block_rows < 1 || block_rows > kMaxBlock)
    fail(name + ": blocks must have 1.." + std::to_string(kMaxBlock) + " rows, got " +
         std::to_string(block_rows));
  return gates * divide_up(rows / gates, block_rows);
}

MatrixOffsets take_matrix(Sections &sections, const MatrixShape &shape,
                          const MatrixRecord &record) {
  const Form form = static_cast<Form>(record.form);
  const int64_t rows = shape.num_tiles() * kTileRows;
  const int64_t slots = int64_t{record.positions} * kSliceStrips;
  const bool offset_possible = form == Form::offset8 || form == Form::signed8;
  MatrixOffsets at{};
  if (record.block_sparse) {
    at.slices = sections.take(num_slices(shape) * int64_t{sizeof(Slice)});
    at.columns = sections.take(slots * int64_t{sizeof(uint16_t)});
    at.blocks = sections.take(slots * block_bytes(form));
  } else {
    at.tiles = sections.take(rows * round_up(shape.columns, columns_per_group(form)));
  }
  at.row_sums = sections.take(offset_possible ? rows * int64_t{sizeof(int16_t)} : 0);
  at.scales = sections.take(rows * int64_t{sizeof(float)});
  return at;
}

void check(const MatrixShape &shape, const MatrixRecord &record, int activation_bits) {
  const Form form = static_cast<Form>(record.form);
  if (record.form > static_cast<uint32_t>(Form::float32) ||
      activation_bytes(form) * 8 != activation_bits)
    fail("packed weights: unknown form " + std::to_string(record.form));
  const bool possible = form == Form::float32 ? record.activation_max == 1
                        : form == Form::signed16
                            ? record.activation_max >= 1 && record.activation_max <= 32767
                            : record.activation_max == 127;
  if (!possible)
    fail("packed weights: activation range " + std::to_string(record.activation_max) +
         " is not possible");
  const int64_t most = num_slices(shape) * divide_up(shape.columns, kBlockColumns);
  if (record.block_sparse ? record.block_sparse != 1 || record.positions > most
                          : form == Form::float32 || record.positions != 0)
    fail("packed weights: layout " + std::to_string(record.block_sparse) + " with " +
         std::to_string(record.positions) + " positions is not possible");
}

Matrix view(const MatrixShape &shape, const MatrixRecord &record, const uint8_t *base,
            const MatrixOffsets &at) {
  Matrix matrix;
  matrix.form = static_cast<Form>(record.form);
  if (record.block_sparse) {
    matrix.slices = base + at.slices;
    matrix.columns = base + at.columns;
    matrix.blocks = base + at.blocks;
  } else {
    matrix.tiles = base + at.tiles;
  }
  matrix.row_sums = base + at.row_sums;
  matrix.scales = base + at.scales;
  matrix.num_tiles = shape.num_tiles();
  matrix.groups = divide_up(shape.columns, columns_per_group(matrix.form));
  matrix.positions = record.positions;
  matrix.activation_max = record.activation_max;
  return matrix;
}

MatrixPlan::MatrixPlan(const MatrixShape &shape, const WeightMatrix &source, int activation_bits,
                       const std::string &name)
    : shape_(shape), source_(source),
      stride_(source.crow_indices ? source.block_columns : shape.columns) {
  const bool is_float = activation_bits == 32;
  if (source.crow_indices)
    check_blocks(shape, source, is_float ? 4 : 1, name);
  if (is_float) {
    record_ = {static_cast<uint32_t>(Form::float32), 1, 0, 0};
    check_floats(name);
  } else {
    examine(activation_bits, name);
  }
  if (source.crow_indices || is_float)
    plan_slices();
}

// Calls visit(panel) from left to right: once for a dense source, once a block for one in blocks.
template <class Visit> void MatrixPlan::for_each_panel(int64_t strip, const Visit &visit) const {
  const int64_t row = shape_.strip_start(strip), rows = shape_.strip_rows(strip);
  if (rows == 0)
    return;
  const uint8_t *weights = static_cast<const uint8_t *>(source_.weights);
  if (!source_.crow_indices)
    return visit(Panel{weights + row * stride_ * weight_bytes(), row, rows, 0, shape_.columns});
  const BlockGrid grid(shape_, source_);
  const int64_t gate = row / grid.gate_rows, row_of_gate = row % grid.gate_rows;
  const int64_t r = gate * grid.block_rows_a_gate + row_of_gate / source_.block_rows;
  for (int64_t b = source_.crow_indices[r]; b < source_.crow_indices[r + 1]; ++b) {
    const int64_t above = b * source_.block_rows + row_of_gate % source_.block_rows;
    const int64_t column = source_.col_indices[b] * source_.block_columns;
    visit(Panel{weights + above * stride_ * weight_bytes(), row, rows, column,
                std::min(source_.block_columns, shape_.columns - column)});
  }
}

void MatrixPlan::examine(int activation_bits, const std::string &name) {
  Proof proof;
  row_sums_.resize(static_cast<size_t>(shape_.rows));
  std::vector<int64_t> magnitudes(row_sums_.size());
  for (int64_t strip = 0; strip < strips(); ++strip)
    for_each_panel(strip, [&](const Panel &panel) {
      for (int64_t i = 0; i < panel.rows; ++i) {
        const int8_t *row = reinterpret_cast<const int8_t *>(panel.weights) + i * stride_;
        const size_t at = static_cast<size_t>(panel.first_row + i);
        for (int64_t k = 0; k < panel.columns; ++k) {
          if (row[k] == -128)
            fail(name + ": weights must be in [-127, 127], got -128 in row " + std::to_string(at));
          row_sums_[at] += row[k];
          magnitudes[at] += std::abs(row[k]);
        }
        for (int64_t k = 0; k + 1 < panel.columns; k += 2)
          if (std::abs(row[k] + row[k + 1]) > 128)
            proof.pair_safe = false;
      }
    });
  for (size_t row = 0; row < row_sums_.size(); ++row) {
    if (row_sums_[row] != static_cast<int16_t>(row_sums_[row]))
      proof.short_sums = false;
    proof.max_magnitude = std::max(proof.max_magnitude, magnitudes[row]);
    if (!std::isfinite(source_.scales[row]) || source_.scales[row] < 0)
      fail(name + ": scales must be finite and not negative, row " + std::to_string(row) +
           " is not");
  }
  record_ = choose(proof, activation_bits);
}

void MatrixPlan::check_floats(const std::string &name) const {
  for (int64_t strip = 0; strip < strips(); ++strip)
    for_each_panel(strip, [&](const Panel &panel) {
      for (int64_t i = 0; i < panel.rows; ++i)
        for (int64_t k = 0; k < panel.columns; ++k)
          if (!std::isfinite(read<float>(panel.weights, i * stride_ + k)))
            fail(name + ": weights must be finite, row " + std::to_string(panel.first_row + i) +
                 " is not");
    });
}

std::vector<MatrixPlan::Block> MatrixPlan::blocks_of(int64_t strip) const {
  std::vector<Block> blocks;
  const auto is_zero = [&](const Panel &panel, int64_t k) {
    const int64_t count = std::min<int64_t>(kBlockColumns, panel.columns - k);
    for (int64_t i = 0; i < panel.rows; ++i)
      if (!all_zero(panel.weights + (i * stride_ + k) * weight_bytes(), count, weight_bytes()))
        return false;
    return true;
  };
  for_each_panel(strip, [&](const Panel &panel) {
    for (int64_t k = 0; k < panel.columns; k += kBlockColumns)
      if (!is_zero(panel, k))
        blocks.push_back({static_cast<uint16_t>((panel.first_column + k) / kBlockColumns),
                          panel.weights + k * weight_bytes()});
  });
  return blocks;
}

void MatrixPlan::plan_slices() {
  record_.block_sparse = 1;
  constexpr int64_t kWindowStrips = kWindowTiles * kStripsPerTile;
  for (int64_t first = 0; first < strips(); first += kWindowStrips) {
    std::vector<Strip> window;
    for (int64_t strip = first; strip < std::min(strips(), first + kWindowStrips); ++strip)
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

void MatrixPlan::write(uint8_t *base, const MatrixOffsets &at) const {
  if (record_.block_sparse)
    write_slices(base + at.slices, base + at.columns, base + at.blocks);
  else
    write_tiles(base + at.tiles);
  if (form() == Form::offset8)
    write_rows<int16_t>(base + at.row_sums, shape_, [&](int64_t row) {
      return static_cast<int16_t>(row_sums_[static_cast<size_t>(row)]);
    });
  write_rows<float>(base + at.scales, shape_, [&](int64_t row) {
    return form() == Form::float32 ? 1.0f : source_.scales[row];
  });
}

void MatrixPlan::write_tiles(uint8_t *tiles) const {
  const int64_t group = columns_per_group(form());
  const int64_t tile_bytes = kTileRows * round_up(shape_.columns, group);
  for (int64_t strip = 0; strip < strips(); ++strip)
    for_each_panel(strip, [&](const Panel &panel) {
      for (int64_t i = 0; i < panel.rows; ++i) {
        const int64_t position = strip % kStripsPerTile * kStripRows + i;
        uint8_t *out = tiles + strip / kStripsPerTile * tile_bytes + position * group;
        for (int64_t k = 0; k < panel.columns; ++k)
          out[k / group * kTileRows * group + k % group] = panel.weights[i * stride_ + k];
      }
    });
}

void MatrixPlan::write_slices(uint8_t *slices, uint8_t *columns, uint8_t *blocks) const {
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
        write_block(strip.index, strip.blocks[i], blocks + slot * block_bytes(form()));
      }
    }
    lstm_fastkernels::write(slices, static_cast<int64_t>(n), slice);
    start += slice.length;
  }
}

void MatrixPlan::write_block(int64_t strip, const Block &from, uint8_t *block) const {
  const int64_t group = columns_per_group(form()), size = weight_bytes();
  const int64_t left = shape_.columns - int64_t{from.column} * kBlockColumns;
  for (int64_t i = 0; i < shape_.strip_rows(strip); ++i)
    for (int64_t k = 0; k < std::min<int64_t>(kBlockColumns, left); ++k)
      std::memcpy(block + ((k / group * kStripRows + i) * group + k % group) * size,
                  from.weights + (i * stride_ + k) * size, static_cast<size_t>(size));
}

} // namespace lstm_fastkernels
