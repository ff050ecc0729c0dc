// Stacks of random weights as a caller holds them, and sequences to run them over.
#pragma once

#include <cstdint>
#include <vector>

#include "lstm_fastkernels/lstm.h"

namespace lstm_fastkernels {

struct SourceMatrix {
  int64_t rows = 0, columns = 0;
  std::vector<int8_t> weights;
  std::vector<float> scales;

  QuantizedMatrix view() const { return {weights.data(), scales.data()}; }
  // The sum of products of a row with integers, which must be exact in every kernel.
  int64_t product(int64_t row, const std::vector<int32_t> &activations) const;
  // A of the numeric contract.
  int32_t activation_max(int activation_bits) const;
};

struct SourceLayer {
  SourceMatrix ih, hh, hr;
  std::vector<float> bias;
};

struct SourceStack {
  LstmShape shape;
  std::vector<SourceLayer> layers; // [layer * num_directions + direction]

  // Calls change(matrix) for every matrix.
  template <class Change> void for_each_matrix(const Change &change) {
    for (SourceLayer &layer : layers) {
      change(layer.ih);
      change(layer.hh);
      if (shape.proj_size)
        change(layer.hr);
    }
  }
  std::vector<LayerWeights> views() const;
  // Exactly packed_bytes long.
  std::vector<uint8_t> packed() const;
};

// Weights of which any two neighbours stay within +-128, or any weights.
enum class Weights { pair_safe, any };

LstmShape shape_of(int64_t input, int64_t hidden, int64_t proj = 0, int64_t layers = 1,
                   int64_t directions = 1, int activation_bits = 8);
SourceStack random_stack(const LstmShape &shape, Weights weights, uint64_t seed);

// Time-major and contiguous, with an initial state that goes beyond 1 here and there.
struct Sequence {
  LstmShape shape;
  int64_t T = 0, B = 0;
  std::vector<float> x, h0, c0;

  int64_t y_columns() const { return shape.num_directions * shape.output_size(); }
  int64_t states() const { return shape.num_layers * shape.num_directions; }
  Sequence steps(int64_t begin, int64_t end) const;
  Sequence row(int64_t row, int64_t length) const;
};

Sequence random_sequence(const LstmShape &shape, int64_t T, int64_t B, uint64_t seed);

struct Result {
  std::vector<float> y, h, c;

  // Row `row` of B, up to `length`.
  Result row(const Sequence &of, int64_t row, int64_t length) const;
};

// Arguments for float32 without lengths; makes room in `result`, filled with a mark.
LstmArguments arguments_for(const Sequence &sequence, Result &result);

Result forward(const std::vector<uint8_t> &packed, const Sequence &sequence, int threads = 1,
               const std::vector<int64_t> &lengths = {});

} // namespace lstm_fastkernels
