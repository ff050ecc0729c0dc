// What a call would do, in words.
#include <algorithm>
#include <string>
#include <vector>

#include "common/percent.h"
#include "common/schedule.h"
#include "kernels/kernels.h"
#include "lstm_fastkernels/lstm.h"
#include "runtime/split.h"
#include "weights/packed.h"
#include "weights/packed_stack.h"

namespace lstm_fastkernels {
namespace {

bool all_zero(const uint8_t *bytes, int64_t count) {
  return std::all_of(bytes, bytes + count, [](uint8_t byte) { return byte == 0; });
}

// Blocks of a dense matrix that are not zero. A block is all of its groups for 8 rows.
int64_t kept_in_tiles(const Matrix &matrix) {
  const int64_t group_bytes = columns_per_group(matrix.form) * weight_bytes(matrix.form);
  const int64_t groups_a_block = kBlockColumns / columns_per_group(matrix.form);
  int64_t kept = 0;
  for (int64_t strip = 0; strip < matrix.num_tiles * kStripsPerTile; ++strip) {
    const uint8_t *const rows = matrix.tiles + strip / kStripsPerTile * matrix.tile_bytes() +
                                strip % kStripsPerTile * kStripRows * group_bytes;
    for (int64_t first = 0; first < matrix.groups; first += groups_a_block) {
      bool zero = true;
      for (int64_t group = first; group < std::min(matrix.groups, first + groups_a_block); ++group)
        zero = zero && all_zero(rows + group * kTileRows * group_bytes, kStripRows * group_bytes);
      kept += !zero;
    }
  }
  return kept;
}

// Those of a block-sparse one, without what slices are filled up with: zeros, and in the last one
// its last strip again.
int64_t kept_in_slices(const Matrix &matrix) {
  int64_t kept = 0;
  for (int64_t i = 0; i < divide_up(matrix.num_tiles * kStripsPerTile, kSliceStrips); ++i) {
    const Slice slice = read<Slice>(matrix.slices, i);
    for (int64_t s = 0; s < kSliceStrips; ++s) {
      if (s > 0 && slice.strips[s] == slice.strips[s - 1])
        continue;
      for (int64_t position = slice.start; position < slice.start + slice.length; ++position)
        kept += !all_zero(matrix.blocks + (position * kSliceStrips + s) * block_bytes(matrix.form),
                          block_bytes(matrix.form));
    }
  }
  return kept;
}

const char *form_text(Form form) {
  switch (form) {
  case Form::offset8:
    return "8-bit, the weights are pair-safe";
  case Form::signed8:
    return "8-bit by signs, the weights are not pair-safe or a row's sum exceeds 16 bits";
  case Form::signed16:
    return "16-bit activations";
  default:
    return "float32, always in blocks";
  }
}

std::string matrix_text(const Matrix &matrix, const MatrixShape &shape) {
  const int64_t blocks = shape.num_blocks(kBlockColumns);
  if (!matrix.is_sparse())
    return "dense, " + percent(kept_in_tiles(matrix), blocks) + " of its 8x4 blocks not zero; " +
           form_text(matrix.form);
  return "block-sparse, " + percent(kept_in_slices(matrix), blocks) + " of its 8x4 blocks kept, " +
         percent(matrix.positions * kSliceStrips, blocks) + " with those that fill up; " +
         form_text(matrix.form);
}

std::string isa_text() {
  const Isa isa = active_isa();
  return std::string(isa_name(isa)) + ": " +
         (isa == supported_isas().back() ? "the highest allowed here" : "chosen by set_isa");
}

std::string threads_text(const Split &split, int64_t directions, const LstmArguments &a) {
  if (a.threads <= 1)
    return "1: no more allowed";
  const std::string threads =
      std::to_string(split.threads) + " of " + std::to_string(a.threads) + ": ";
  if (split.products < kProductsWorthAThread)
    return threads + std::to_string(split.products) + " products, a second one pays from " +
           std::to_string(kProductsWorthAThread) + " on";
  return threads + (directions == 2 ? "two directions" : "one direction") + ", " +
         std::to_string(a.batch_size) + " rows in " + std::to_string(split.ranges) +
         (split.ranges == 1 ? " part" : " parts");
}

} // namespace

std::vector<std::string> explain(const void *packed, size_t bytes, const LstmArguments &arguments) {
  const PackedStack stack(packed, bytes);
  const Schedule checked(arguments);
  if (arguments.batch_size == 0)
    return {"nothing to run"};
  const LstmShape &shape = stack.shape;
  const Split split = split_of(stack, arguments);
  std::vector<std::string> lines = {"instruction set: " + isa_text(),
                                    "threads: " +
                                        threads_text(split, shape.num_directions, arguments)};
  for (int64_t i = 0; i < num_records(shape); ++i) {
    const PackedLayer &layer = stack.layers[static_cast<size_t>(i)];
    const auto add = [&](const char *name, const Matrix &matrix, const MatrixShape &of) {
      lines.push_back(name + layer_suffix(shape, i) + ": " + matrix_text(matrix, of));
    };
    add("weight_ih", layer.ih, ih_shape(shape, i / shape.num_directions));
    add("weight_hh", layer.hh, hh_shape(shape));
    if (shape.proj_size)
      add("weight_hr", layer.hr, hr_shape(shape));
  }
  return lines;
}

} // namespace lstm_fastkernels
