// What a call would do, and the same in words.
#include <algorithm>
#include <string>
#include <vector>

#include "common/percent.h"
#include "common/schedule.h"
#include "lstm_fastkernels/isa.h"
#include "runtime/processors.h"
#include "runtime/split.h"
#include "runtime/stack.h"
#include "runtime/state_rows.h"
#include "runtime/token_ids.h"
#include "weights/packed_int4.h"
#include "weights/packed_stack.h"

namespace lstm_fastkernels {
namespace {

bool all_zero(const uint8_t *bytes, int64_t count) {
  return std::all_of(bytes, bytes + count, [](uint8_t byte) { return byte == 0; });
}

// Whether a group of columns is zero in 8 rows of a dense matrix.
bool is_zero(const Matrix &matrix, int64_t strip, int64_t group) {
  const uint8_t *const tile = matrix.tiles + strip / kStripsPerTile * matrix.tile_bytes();
  const int64_t row = strip % kStripsPerTile * kStripRows;
  if (matrix.arithmetic != Arithmetic::int4) {
    const int64_t width = group_bytes(matrix.arithmetic);
    return all_zero(tile + (group * kTileRows + row) * width, kStripRows * width);
  }
  for (int64_t i = 0; i < kStripRows * kBlockColumns; ++i)
    if (int4_weight(tile, row + i / kBlockColumns, group * kBlockColumns + i % kBlockColumns) != 0)
      return false;
  return true;
}

// Blocks of a dense matrix that are not zero. A block is all of its groups for 8 rows.
int64_t kept_in_tiles(const Matrix &matrix) {
  const int64_t groups_a_block = kBlockColumns / columns_per_group(matrix.arithmetic);
  int64_t kept = 0;
  for (int64_t strip = 0; strip < matrix.num_tiles * kStripsPerTile; ++strip) {
    for (int64_t first = 0; first < matrix.groups; first += groups_a_block) {
      bool zero = true;
      for (int64_t group = first; group < std::min(matrix.groups, first + groups_a_block); ++group)
        zero = zero && is_zero(matrix, strip, group);
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
        kept += !all_zero(matrix.blocks +
                              (position * kSliceStrips + s) * block_bytes(matrix.arithmetic),
                          block_bytes(matrix.arithmetic));
    }
  }
  return kept;
}

const char *products_text(Arithmetic arithmetic) {
  switch (arithmetic) {
  case Arithmetic::pairs8:
    return "8-bit";
  case Arithmetic::any8:
    return "8-bit; on AVX2 by 16-bit operands, the weights are not pair-safe";
  case Arithmetic::signed16:
    return "16-bit activations";
  case Arithmetic::int4:
    return "4-bit weights, 8-bit activations";
  case Arithmetic::table32:
    return "float32";
  case Arithmetic::table16:
    return "float16";
  default:
    return "float32";
  }
}

MatrixPlan matrix_plan(const std::string &name, const Matrix &matrix, const MatrixShape &shape) {
  MatrixPlan plan;
  plan.name = name;
  plan.precision = matrix.precision;
  plan.products = products_text(matrix.arithmetic);
  if (is_table(matrix.arithmetic)) {
    plan.ids = shape.columns;
    return plan;
  }
  plan.block_sparse = matrix.is_sparse();
  plan.blocks = shape.num_blocks(kBlockColumns);
  plan.nonzero = matrix.is_sparse() ? kept_in_slices(matrix) : kept_in_tiles(matrix);
  plan.stored = matrix.is_sparse() ? matrix.positions * kSliceStrips : plan.blocks;
  return plan;
}

std::string matrix_text(const MatrixPlan &plan) {
  if (plan.ids)
    return plan.name + ": table of " + std::to_string(plan.ids) + " token ids; " + plan.products;
  const std::string nonzero = percent(plan.nonzero, plan.blocks);
  const std::string layout = plan.block_sparse
                                 ? "block-sparse, " + nonzero + " of its 8x4 blocks kept, " +
                                       percent(plan.stored, plan.blocks) + " including padding"
                                 : "dense, " + nonzero + " of its 8x4 blocks not zero";
  const std::string rank = plan.rank ? "rank " + std::to_string(plan.rank) + ", " : "";
  return plan.name + ": " + rank + layout + "; " + plan.products;
}

std::string threads_text(const CallPlan &plan) {
  const bool capped = plan.threads_allowed < plan.threads_asked;
  const std::string processors = std::to_string(plan.threads_asked) +
                                 " asked for, this process may use " +
                                 std::to_string(plan.threads_allowed);
  if (plan.threads_allowed <= 1)
    return capped ? "1: " + processors : "1: no more allowed";
  std::string threads =
      std::to_string(plan.threads) + " of " + std::to_string(plan.threads_allowed) + ": ";
  if (plan.products < plan.products_for_threads)
    threads += std::to_string(plan.products) + " products, a second one pays from " +
               std::to_string(plan.products_for_threads) + " on, from " +
               std::to_string(plan.products_for_awake_threads) + " on in calls without a pause";
  else
    threads +=
        (plan.directions == 2 ? "two directions, " : "one direction, ") +
        std::to_string(plan.rows) + " rows in " + std::to_string(plan.row_ranges) +
        (plan.row_ranges == 1 ? " part" : " parts") +
        (plan.team == 1 ? "" : ", weights shared by " + std::to_string(plan.team)) +
        (plan.layers_at_once == 1 ? ""
                                  : ", " + std::to_string(plan.layers_at_once) + " layers at once");
  return capped ? threads + "; " + processors : threads;
}

} // namespace

CallPlan plan_call(const PackedStack &stack, const LstmArguments &arguments) {
  check_input_kind(arguments, stack.takes_ids());
  const Schedule checked(arguments);
  const StateRows checked_rows(arguments);
  CallPlan plan;
  plan.empty = arguments.batch_size == 0;
  if (plan.empty)
    return plan;
  const Split split = split_of(stack, arguments, [] { return false; });
  plan.isa = active_isa();
  plan.best_isa = plan.isa == supported_isas().back();
  plan.threads = split.threads;
  plan.threads_asked = arguments.threads;
  plan.threads_allowed = std::min(arguments.threads, usable_processors());
  plan.directions = stack.shape.num_directions;
  plan.rows = arguments.batch_size;
  plan.row_ranges = split.ranges;
  plan.team = split.members;
  plan.layers_at_once = split.layers;
  plan.products = split.products;
  plan.products_for_threads = kProductsWorthAThread;
  plan.products_for_awake_threads = kProductsWorthAnAwakeThread;
  for (const MatrixName &of : matrix_names(stack.shape)) {
    const PackedMatrix &matrix = matrix_of(stack.layers[static_cast<size_t>(of.cell)], of.kind);
    for (int part = 0; part < num_parts(matrix.rank); ++part)
      plan.matrices.push_back(matrix_plan(part_name(of.name, matrix.rank, part),
                                          part ? matrix.v : matrix,
                                          part_shape(matrix_shape(of), matrix.rank, part)));
    for (int part = 0; part < num_parts(matrix.rank); ++part)
      (plan.matrices.end() - 1 - part)->rank = matrix.rank;
  }
  return plan;
}

CallPlan explain(const void *packed, size_t bytes, const LstmArguments &arguments) {
  return plan_call(PackedStack(packed, bytes), arguments);
}

std::vector<std::string> describe(const CallPlan &plan) {
  if (plan.empty)
    return {"nothing to run"};
  std::vector<std::string> lines = {
      "instruction set: " + std::string(plan.isa) + ": " +
          (plan.best_isa ? "the highest allowed here" : "chosen by set_isa"),
      "threads: " + threads_text(plan)};
  for (const MatrixPlan &matrix : plan.matrices)
    lines.push_back(matrix_text(matrix));
  return lines;
}

} // namespace lstm_fastkernels
