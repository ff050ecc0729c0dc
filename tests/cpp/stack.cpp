#include "stack.h"

#include <algorithm>
#include <cstdlib>

#include "support.h"

namespace lstm_fastkernels {
namespace {

SourceMatrix random_matrix(int64_t rows, int64_t columns, Weights weights, Random &random) {
  SourceMatrix matrix{rows, columns, {}, {}};
  const int64_t most = weights == Weights::pair_safe ? 64 : 127;
  for (int64_t i = 0; i < rows * columns; ++i)
    matrix.weights.push_back(static_cast<int8_t>(random.integer(-most, most)));
  for (int64_t i = 0; i < rows; ++i)
    matrix.scales.push_back(random.real(0.5f, 1.5f) / static_cast<float>(most));
  return matrix;
}

// Columns of `count` rows out of [outer, rows, columns].
std::vector<float> slice(const std::vector<float> &from, int64_t outer, int64_t rows, int64_t row,
                         int64_t columns) {
  std::vector<float> taken;
  for (int64_t i = 0; i < outer; ++i) {
    const auto begin = from.begin() + (i * rows + row) * columns;
    taken.insert(taken.end(), begin, begin + columns);
  }
  return taken;
}

} // namespace

int64_t SourceMatrix::product(int64_t row, const std::vector<int32_t> &activations) const {
  int64_t sum = 0;
  for (int64_t k = 0; k < columns; ++k)
    sum += int64_t{weights[static_cast<size_t>(row * columns + k)]} *
           activations[static_cast<size_t>(k)];
  return sum;
}

int32_t SourceMatrix::activation_max(int activation_bits) const {
  if (activation_bits == 8)
    return 127;
  int64_t most = 1;
  for (int64_t row = 0; row < rows; ++row) {
    int64_t sum = 0;
    for (int64_t k = 0; k < columns; ++k)
      sum += std::abs(weights[static_cast<size_t>(row * columns + k)]);
    most = std::max(most, sum);
  }
  return static_cast<int32_t>(std::min<int64_t>(32767, 0x7fffffff / most));
}

std::vector<LayerWeights> SourceStack::views() const {
  std::vector<LayerWeights> all;
  for (const SourceLayer &layer : layers)
    all.push_back({layer.ih.view(), layer.hh.view(), layer.hr.view(), layer.bias.data()});
  return all;
}

std::vector<uint8_t> SourceStack::packed() const {
  std::vector<uint8_t> bytes(packed_bytes(shape), 0xa5);
  pack(shape, views().data(), bytes.data());
  return bytes;
}

LstmShape shape_of(int64_t input, int64_t hidden, int64_t proj, int64_t layers, int64_t directions,
                   int activation_bits) {
  return {input, hidden, proj, layers, directions, activation_bits};
}

SourceStack random_stack(const LstmShape &shape, Weights weights, uint64_t seed) {
  Random random(seed);
  SourceStack stack{shape, {}};
  const int64_t gates = 4 * shape.hidden_size;
  for (int64_t i = 0; i < shape.num_layers * shape.num_directions; ++i) {
    SourceLayer layer;
    const int64_t inputs = shape.layer_input_size(i / shape.num_directions);
    layer.ih = random_matrix(gates, inputs, weights, random);
    layer.hh = random_matrix(gates, shape.output_size(), weights, random);
    layer.hr = random_matrix(shape.proj_size, shape.hidden_size, weights, random);
    layer.bias = random_reals(gates, -1, 1, random.bits());
    stack.layers.push_back(layer);
  }
  return stack;
}

Sequence random_sequence(const LstmShape &shape, int64_t T, int64_t B, uint64_t seed) {
  Sequence s{shape, T, B, {}, {}, {}};
  s.x = random_reals(T * B * shape.input_size, -3, 3, seed);
  s.h0 = random_reals(s.states() * B * shape.output_size(), -1.5f, 1.5f, seed + 1);
  s.c0 = random_reals(s.states() * B * shape.hidden_size, -2, 2, seed + 2);
  return s;
}

Sequence Sequence::steps(int64_t begin, int64_t end) const {
  Sequence part = *this;
  const int64_t step = B * shape.input_size;
  part.T = end - begin;
  part.x.assign(x.begin() + begin * step, x.begin() + end * step);
  return part;
}

Sequence Sequence::row(int64_t row, int64_t length) const {
  Sequence one{shape, length, 1, {}, {}, {}};
  one.x = slice(x, length, B, row, shape.input_size);
  one.h0 = slice(h0, states(), B, row, shape.output_size());
  one.c0 = slice(c0, states(), B, row, shape.hidden_size);
  return one;
}

Result Result::row(const Sequence &of, int64_t row, int64_t length) const {
  return {slice(y, length, of.B, row, of.y_columns()),
          slice(h, of.states(), of.B, row, of.shape.output_size()),
          slice(c, of.states(), of.B, row, of.shape.hidden_size)};
}

LstmArguments arguments_for(const Sequence &s, Result &result) {
  constexpr float kMark = 12345.0f;
  result.y.assign(static_cast<size_t>(s.T * s.B * s.y_columns()), kMark);
  result.h.assign(s.h0.size(), kMark);
  result.c.assign(s.c0.size(), kMark);
  LstmArguments a;
  a.time_steps = s.T;
  a.batch_size = s.B;
  a.x = s.x.data();
  a.y = result.y.data();
  a.x_row_stride = s.shape.input_size;
  a.x_time_stride = s.B * a.x_row_stride;
  a.y_row_stride = s.y_columns();
  a.y_time_stride = s.B * a.y_row_stride;
  a.h0 = s.h0.data();
  a.c0 = s.c0.data();
  a.h_n = result.h.data();
  a.c_n = result.c.data();
  return a;
}

Result forward(const std::vector<uint8_t> &packed, const Sequence &sequence, int threads,
               const std::vector<int64_t> &lengths) {
  Result result;
  LstmArguments a = arguments_for(sequence, result);
  a.threads = threads;
  if (!lengths.empty())
    a.lengths = lengths.data();
  lstm_forward(packed.data(), packed.size(), a);
  return result;
}

} // namespace lstm_fastkernels
