// Stacks of random weights as a caller holds them, and sequences to run them over.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "lstm_fastkernels/lstm.h"
#include "lstm_fastkernels/model.h"
#include "runtime/split.h"

namespace lstm_fastkernels {

struct BlockShape {
  int64_t rows = 0, columns = 0;
};

// A matrix as a caller holds it: int8 or float32, dense or in blocks, or int4, or a table.
struct HeldMatrix {
  Precision precision;
  std::vector<int8_t> integers; // of int4, two a byte
  std::vector<float> floats;
  std::vector<uint16_t> halves;
  std::vector<float> scales;
  int64_t group_size = 0;
  BlockShape block;
  std::vector<int32_t> crow, col; // empty: dense
  std::vector<HeldMatrix> v;      // one where it is low-rank, and this is U
  int64_t rank = 0;

  // Valid as long as the matrix, and until the next call.
  WeightMatrix view() const;

private:
  mutable WeightMatrix view_of_v_;
};

struct HeldLayer {
  HeldMatrix ih, hh, hr;
  std::vector<float> bias;
};

struct HeldStack {
  LstmShape shape;
  std::vector<HeldLayer> layers;

  std::vector<CellWeights> views() const;
  // Exactly as long as PackPlan says.
  std::vector<uint8_t> packed() const;
};

// What a matrix holds, always written out, and how it is handed over.
struct SourceMatrix {
  int64_t rows = 0, columns = 0;
  int64_t gates = 4; // 1: plain rows
  Precision precision;
  std::vector<float> weights;  // integers where there are scales
  std::vector<float> scales;   // empty: float32 weights
  int64_t group_size = 0;      // of int4, whose scales are [rows, groups]
  BlockShape block;            // no rows: dense
  bool explicit_zeros = false; // holds blocks without any weight, too
  std::vector<SourceMatrix> v; // one where it is low-rank, and this is U

  float scale(int64_t row) const {
    return scales.empty() ? 1.0f : scales[static_cast<size_t>(row)];
  }
  bool is_int4() const { return precision.weights == WeightType::int4; }
  int64_t groups() const { return is_int4() ? (columns + group_size - 1) / group_size : 1; }
  // The sum of products of a row with integers, which must be exact in every kernel.
  int64_t product(int64_t row, const std::vector<int32_t> &activations) const;
  // Their sum by fma in the order of columns.
  float product(int64_t row, const std::vector<float> &activations) const;
  // A of 16-bit activations in the numeric contract.
  int32_t activation_max() const;
  // Of int4: the value of a row's products with activations q, without their scale.
  float int4_product(int64_t row, const std::vector<int32_t> &q, int32_t zero_point) const;
  // Leaves about `density` of these blocks and makes the others zero.
  void prune(BlockShape by, float density, uint64_t seed);
  HeldMatrix held() const;

private:
  HeldMatrix held_table() const;
  int64_t block_rows(BlockShape by) const;
  bool covers(BlockShape by, int64_t block_row, int64_t i, int64_t column) const;
  size_t index(BlockShape by, int64_t block_row, int64_t i, int64_t column) const;
};

struct SourceLayer {
  SourceMatrix ih, hh, hr;
  std::vector<float> bias;
};

struct SourceStack {
  LstmShape shape;
  std::vector<SourceLayer> layers; // [layer * num_directions + direction]

  // Calls change(matrix) for every matrix; a low-rank one's U.
  template <class Change> void for_each_matrix(const Change &change) {
    for (SourceLayer &layer : layers) {
      change(layer.ih);
      change(layer.hh);
      if (shape.proj_size)
        change(layer.hr);
    }
  }
  HeldStack held() const;
  std::vector<uint8_t> packed() const { return held().packed(); }
  // Of its first matrix.
  Precision precision() const { return layers.front().ih.precision; }
};

// Weights of which any two neighbours stay within +-128, or any weights.
enum class Weights { pair_safe, any };

constexpr Precision kInt8{WeightType::int8, ActivationType::int8};
constexpr Precision kInt16{WeightType::int8, ActivationType::int16};
constexpr Precision kFloat32{WeightType::float32, ActivationType::float32};
constexpr Precision kInt4{WeightType::int4, ActivationType::int8};
constexpr Precision kTable{WeightType::float32, ActivationType::ids};
constexpr Precision kHalfTable{WeightType::float16, ActivationType::ids};
constexpr Precision kTables[] = {kTable, kHalfTable};
// That matrices in blocks may have, and all.
constexpr Precision kBlockPrecisions[] = {kInt8, kInt16, kFloat32};
constexpr Precision kPrecisions[] = {kInt8, kInt16, kFloat32, kInt4};

// A shape, and the precision of all matrices.
struct TypedShape : LstmShape {
  TypedShape(const LstmShape &shape, Precision of) : LstmShape(shape), precision(of) {}
  Precision precision;
};

TypedShape shape_of(int64_t input, int64_t hidden, int64_t proj = 0, int64_t layers = 1,
                    int64_t directions = 1, Precision precision = kInt8);
// Dense.
SourceStack random_stack(const TypedShape &shape, Weights weights, uint64_t seed);
// Each matrix of a precision of its own.
SourceStack mixed_stack(const LstmShape &shape, uint64_t seed);

// The block shapes that tests go through.
inline const std::vector<BlockShape> kBlockShapes = {{8, 4}, {16, 32}, {24, 8}};

// Pruned and held in blocks of this shape, but for int4.
SourceStack in_blocks(SourceStack stack, BlockShape block, float density);
// Calls visit(stack) for stacks of awkward sizes, with any weights, in blocks of every precision
// and shape and of several densities.
void for_each_stack_in_blocks(const std::function<void(const SourceStack &)> &visit);
// The same with a shape and a density for each matrix, of which some stay dense.
SourceStack in_mixed_blocks(SourceStack stack, uint64_t seed);
// Low-rank matrices of random factors, one in four of them left as it is.
SourceStack in_factors(SourceStack stack, uint64_t seed);
// The first layer's weight_ih replaced by float32 ones of which halves hold all bits, or by tables
// of the same values.
SourceStack with_floats_first(SourceStack stack, uint64_t seed);
SourceStack with_tables(SourceStack stack, Precision table, uint64_t seed);
// The same weights, handed over dense.
SourceStack as_dense(SourceStack stack);

// Time-major and contiguous, with an initial state that goes beyond 1 here and there.
struct Sequence {
  LstmShape shape;
  int64_t T = 0, B = 0;
  std::vector<float> x, h0, c0;
  std::vector<int64_t> ids; // in the place of x, where there are any

  int64_t y_columns() const { return shape.num_directions * shape.output_size(); }
  int64_t states() const { return shape.num_layers * shape.num_directions; }
  Sequence steps(int64_t begin, int64_t end) const;
  Sequence row(int64_t row, int64_t length) const;
};

Sequence random_sequence(const LstmShape &shape, int64_t T, int64_t B, uint64_t seed);
// Of token ids, with x the one-hot rows for them.
Sequence random_ids(const LstmShape &shape, int64_t T, int64_t B, uint64_t seed);
// Whichever of both the stack reads.
Sequence random_input(const SourceStack &stack, int64_t T, int64_t B, uint64_t seed);
// Of B rows, each 1..T.
std::vector<int64_t> random_lengths(int64_t T, int64_t B, uint64_t seed);

struct Result {
  std::vector<float> y, h, c;

  // Row `row` of B, up to `length`.
  Result row(const Sequence &of, int64_t row, int64_t length) const;
};

// Arguments for float32 without lengths; makes room in `result`, filled with a mark.
LstmArguments arguments_for(const Sequence &sequence, Result &result);

Result forward(const std::vector<uint8_t> &packed, const Sequence &sequence, int threads = 1,
               const std::vector<int64_t> &lengths = {});
// Split over threads as told.
Result forward(const std::vector<uint8_t> &packed, const Sequence &sequence, const Split &split,
               const std::vector<int64_t> &lengths = {});
Result forward(const Lstm &lstm, const Sequence &sequence, int threads = 1,
               const std::vector<int64_t> &lengths = {});

void check_same(const Result &found, const Result &expected);

} // namespace lstm_fastkernels
