#include "stack.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "check.h"
#include "runtime/stack.h"
#include "support.h"
#include "weights/packed.h"

namespace lstm_fastkernels {
namespace {

SourceMatrix random_matrix(int64_t rows, int64_t columns, int64_t gates, Random &random) {
  SourceMatrix matrix{rows, columns, gates, kFloat32, {}, {}, 0, {}, false, {}};
  const float most = 2.0f / std::sqrt(static_cast<float>(columns));
  matrix.weights = random_reals(rows * columns, -most, most, random.bits());
  return matrix;
}

SourceMatrix random_integers(int64_t rows, int64_t columns, int64_t gates, Precision precision,
                             int64_t most, Random &random) {
  SourceMatrix matrix{rows, columns, gates, precision, {}, {}, 0, {}, false, {}};
  if (matrix.is_int4()) {
    matrix.group_size = 32 << random.integer(0, 2);
    most = 8;
  }
  for (int64_t i = 0; i < rows * columns; ++i)
    matrix.weights.push_back(static_cast<float>(
        random.integer(-most, std::min<int64_t>(most, matrix.is_int4() ? 7 : 127))));
  for (int64_t i = 0; i < rows * matrix.groups(); ++i)
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

WeightMatrix HeldMatrix::view() const {
  const bool is_float = scales.empty();
  WeightMatrix matrix;
  matrix.precision = precision;
  matrix.weights = is_float ? static_cast<const void *>(floats.data()) : integers.data();
  if (!halves.empty())
    matrix.weights = halves.data();
  matrix.scales = is_float ? nullptr : scales.data();
  matrix.num_blocks = static_cast<int64_t>(col.size());
  matrix.group_size = group_size;
  matrix.block_rows = block.rows;
  matrix.block_columns = block.columns;
  matrix.crow_indices = crow.empty() ? nullptr : crow.data();
  matrix.col_indices = col.data();
  matrix.rank = rank;
  if (rank) {
    view_of_v_ = v.front().view();
    matrix.v = &view_of_v_;
  }
  return matrix;
}

std::vector<CellWeights> HeldStack::views() const {
  std::vector<CellWeights> all;
  for (const HeldLayer &layer : layers)
    all.push_back({layer.ih.view(), layer.hh.view(), layer.hr.view(), layer.bias.data()});
  return all;
}

std::vector<uint8_t> HeldStack::packed() const {
  const auto all = views();
  const PackPlan plan(shape, all.data());
  std::vector<uint8_t> bytes(plan.bytes(), 0xa5);
  plan.write(bytes.data(), bytes.size());
  return bytes;
}

int64_t SourceMatrix::product(int64_t row, const std::vector<int32_t> &activations) const {
  const float *w = weights.data() + row * columns;
  int64_t sum = 0;
  for (size_t k = 0; k < activations.size(); ++k)
    sum += static_cast<int64_t>(w[k]) * activations[k];
  return sum;
}

float SourceMatrix::int4_product(int64_t row, const std::vector<int32_t> &q,
                                 int32_t zero_point) const {
  const float *w = weights.data() + row * columns, *scale = scales.data() + row * groups();
  float row_sum = 0;
  std::vector<int64_t> sums;
  for (int64_t group = 0; group < groups(); ++group) {
    int64_t sum = 0, weight_sum = 0;
    for (int64_t k = group * group_size; k < std::min((group + 1) * group_size, columns); ++k) {
      sum += static_cast<int64_t>(w[k]) * q[static_cast<size_t>(k)];
      weight_sum += static_cast<int64_t>(w[k]);
    }
    sums.push_back(sum);
    row_sum = std::fma(static_cast<float>(weight_sum), scale[group], row_sum);
  }
  float value = static_cast<float>(-zero_point) * row_sum;
  for (int64_t group = 0; group < groups(); ++group)
    value = std::fma(static_cast<float>(sums[static_cast<size_t>(group)]), scale[group], value);
  return value;
}

float SourceMatrix::product(int64_t row, const std::vector<float> &activations) const {
  const float *w = weights.data() + row * columns;
  float sum = 0;
  for (size_t k = 0; k < activations.size(); ++k)
    sum = std::fma(w[k], activations[k], sum);
  return sum;
}

int32_t SourceMatrix::activation_max() const {
  int64_t most = 1;
  for (int64_t row = 0; row < rows; ++row) {
    int64_t sum = 0;
    for (int64_t k = 0; k < columns; ++k)
      sum += std::abs(static_cast<int>(weights[static_cast<size_t>(row * columns + k)]));
    most = std::max(most, sum);
  }
  return static_cast<int32_t>(std::min<int64_t>(32767, 0x7fffffff / most));
}

int64_t SourceMatrix::block_rows(BlockShape by) const {
  return gates * divide_up(rows / gates, by.rows);
}

bool SourceMatrix::covers(BlockShape by, int64_t block_row, int64_t i, int64_t column) const {
  const int64_t a_gate = block_rows(by) / gates;
  return block_row % a_gate * by.rows + i < rows / gates && column < columns;
}

size_t SourceMatrix::index(BlockShape by, int64_t block_row, int64_t i, int64_t column) const {
  const int64_t a_gate = block_rows(by) / gates;
  const int64_t row = block_row / a_gate * (rows / gates) + block_row % a_gate * by.rows + i;
  return static_cast<size_t>(row * columns + column);
}

void SourceMatrix::prune(BlockShape by, float density, uint64_t seed) {
  Random random(seed);
  for (int64_t r = 0; r < block_rows(by); ++r)
    for (int64_t first = 0; first < columns; first += by.columns) {
      if (random.real(0, 1) < density)
        continue;
      for (int64_t i = 0; i < by.rows; ++i)
        for (int64_t k = first; k < first + by.columns; ++k)
          if (covers(by, r, i, k))
            weights[index(by, r, i, k)] = 0;
    }
}

HeldMatrix SourceMatrix::held_table() const {
  HeldMatrix table;
  table.precision = precision;
  std::vector<float> transposed;
  for (int64_t k = 0; k < columns; ++k)
    for (int64_t row = 0; row < rows; ++row)
      transposed.push_back(weights[static_cast<size_t>(row * columns + k)]);
  if (precision == kTable) {
    table.floats = transposed;
  } else {
    table.halves.resize(transposed.size());
    narrow(transposed.data(), rows * columns, DataType::float16, table.halves.data());
  }
  return table;
}

HeldMatrix SourceMatrix::held() const {
  if (is_table(precision))
    return held_table();
  HeldMatrix matrix;
  matrix.precision = precision;
  matrix.scales = scales;
  matrix.group_size = group_size;
  for (const SourceMatrix &factor : v) {
    matrix.v.push_back(factor.held());
    matrix.rank = factor.rows;
  }
  if (is_int4()) {
    const int64_t row_bytes = divide_up(columns, 2);
    matrix.integers.resize(static_cast<size_t>(rows * row_bytes));
    for (int64_t i = 0; i < rows * columns; ++i) {
      const int64_t row = i / columns, k = i % columns;
      const int half = static_cast<int>(weights[static_cast<size_t>(i)]) & 15;
      matrix.integers[static_cast<size_t>(row * row_bytes + k / 2)] |=
          static_cast<int8_t>(half << (k % 2 ? 4 : 0));
    }
    return matrix;
  }
  matrix.block = block;
  std::vector<float> values;
  if (block.rows == 0)
    values = weights;
  else
    matrix.crow = {0};
  for (int64_t r = 0; block.rows && r < block_rows(block); ++r) {
    for (int64_t first = 0; first < columns; first += block.columns) {
      std::vector<float> taken;
      for (int64_t i = 0; i < block.rows; ++i)
        for (int64_t k = first; k < first + block.columns; ++k)
          taken.push_back(covers(block, r, i, k) ? weights[index(block, r, i, k)] : 0.0f);
      if (!explicit_zeros && taken == std::vector<float>(taken.size()))
        continue;
      matrix.col.push_back(static_cast<int32_t>(first / block.columns));
      values.insert(values.end(), taken.begin(), taken.end());
    }
    matrix.crow.push_back(static_cast<int32_t>(matrix.col.size()));
  }
  if (scales.empty())
    matrix.floats = values;
  else
    matrix.integers.assign(values.begin(), values.end());
  return matrix;
}

HeldStack SourceStack::held() const {
  HeldStack stack{shape, {}};
  for (const SourceLayer &layer : layers)
    stack.layers.push_back({layer.ih.held(), layer.hh.held(), layer.hr.held(), layer.bias});
  return stack;
}

TypedShape shape_of(int64_t input, int64_t hidden, int64_t proj, int64_t layers, int64_t directions,
                    Precision precision) {
  return {{input, hidden, proj, layers, directions}, precision};
}

namespace {

// next_precision() is that of the next matrix.
template <class Next>
SourceStack stack_of(const LstmShape &shape, int64_t most, uint64_t seed,
                     const Next &next_precision) {
  Random random(seed);
  SourceStack stack{shape, {}};
  const int64_t units = 4 * shape.hidden_size;
  const auto matrix = [&](int64_t rows, int64_t columns, int64_t gates) {
    const Precision precision = next_precision();
    return precision == kFloat32 ? random_matrix(rows, columns, gates, random)
                                 : random_integers(rows, columns, gates, precision, most, random);
  };
  for (int64_t cell = 0; cell < shape.num_cells(); ++cell) {
    SourceLayer layer;
    layer.ih = matrix(units, shape.layer_input_size(cell / shape.num_directions), 4);
    layer.hh = matrix(units, shape.output_size(), 4);
    layer.hr = matrix(shape.proj_size, shape.hidden_size, 1);
    layer.bias = random_reals(units, -1, 1, random.bits());
    stack.layers.push_back(layer);
  }
  return stack;
}

} // namespace

SourceStack random_stack(const TypedShape &shape, Weights weights, uint64_t seed) {
  return stack_of(shape, weights == Weights::pair_safe ? 64 : 128, seed,
                  [&] { return shape.precision; });
}

SourceStack mixed_stack(const LstmShape &shape, uint64_t seed) {
  Random random(seed + 1000);
  return stack_of(shape, 128, seed, [&] { return kPrecisions[random.integer(0, 3)]; });
}

SourceStack in_blocks(SourceStack stack, BlockShape block, float density) {
  uint64_t seed = 41;
  stack.for_each_matrix([&](SourceMatrix &m) {
    m.prune(block, density, seed++);
    if (!m.is_int4())
      m.block = block;
  });
  return stack;
}

void for_each_stack_in_blocks(const std::function<void(const SourceStack &)> &visit) {
  for (Precision precision : kBlockPrecisions)
    for (const TypedShape &shape :
         {shape_of(5, 9, 3, 2, 2, precision), shape_of(9, 137, 20, 1, 1, precision)})
      for (const BlockShape &block : kBlockShapes)
        for (float density : {0.0f, 0.05f, 0.5f, 1.0f}) {
          WITH("precision ", precision_name(precision), " hidden ", shape.hidden_size,
               " rows a block ", block.rows, " density ", density);
          visit(in_blocks(random_stack(shape, Weights::any, 51), block, density));
        }
}

SourceStack in_factors(SourceStack stack, uint64_t seed) {
  Random random(seed);
  stack.for_each_matrix([&](SourceMatrix &m) {
    if (random.integer(0, 3) == 0)
      return;
    const int64_t rank = random.integer(1, static_cast<int>(std::min(m.rows, m.columns)));
    const auto factor = [&](int64_t rows, int64_t columns, int64_t gates) {
      return m.precision == kFloat32
                 ? random_matrix(rows, columns, gates, random)
                 : random_integers(rows, columns, gates, m.precision, 128, random);
    };
    SourceMatrix u = factor(m.rows, rank, m.gates);
    u.v.push_back(factor(rank, m.columns, 1));
    m = u;
  });
  return stack;
}

SourceStack with_floats_first(SourceStack stack, uint64_t seed) {
  Random random(seed);
  for (int64_t cell = 0; cell < stack.shape.num_directions; ++cell) {
    SourceMatrix &ih = stack.layers[static_cast<size_t>(cell)].ih;
    ih = random_matrix(ih.rows, ih.columns, ih.gates, random);
    for (float &weight : ih.weights) {
      uint16_t half; // subnormal ones, too
      weight *= random.integer(0, 9) ? 1.0f : 0x1p-16f;
      narrow(&weight, 1, DataType::float16, &half);
      widen(&half, DataType::float16, 1, &weight);
    }
  }
  return stack;
}

SourceStack with_tables(SourceStack stack, Precision table, uint64_t seed) {
  stack = with_floats_first(std::move(stack), seed);
  for (int64_t cell = 0; cell < stack.shape.num_directions; ++cell)
    stack.layers[static_cast<size_t>(cell)].ih.precision = table;
  return stack;
}

SourceStack in_mixed_blocks(SourceStack stack, uint64_t seed) {
  Random random(seed);
  stack.for_each_matrix([&](SourceMatrix &m) {
    const BlockShape &block = kBlockShapes[random.bits() % kBlockShapes.size()];
    const float densities[] = {0.0f, 0.05f, 0.5f, 1.0f};
    m.prune(block, densities[random.integer(0, 3)], random.bits());
    if (random.integer(0, 3) > 0 && !m.is_int4())
      m.block = block;
    m.explicit_zeros = random.integer(0, 2) == 0;
  });
  return stack;
}

SourceStack as_dense(SourceStack stack) {
  stack.for_each_matrix([](SourceMatrix &m) { m.block = {}; });
  return stack;
}

Sequence random_sequence(const LstmShape &shape, int64_t T, int64_t B, uint64_t seed) {
  Sequence s{shape, T, B, {}, {}, {}, {}};
  s.x = random_reals(T * B * shape.input_size, -3, 3, seed);
  s.h0 = random_reals(s.states() * B * shape.output_size(), -1.5f, 1.5f, seed + 1);
  s.c0 = random_reals(s.states() * B * shape.hidden_size, -2, 2, seed + 2);
  return s;
}

Sequence random_ids(const LstmShape &shape, int64_t T, int64_t B, uint64_t seed) {
  Sequence s = random_sequence(shape, T, B, seed);
  Random random(seed + 3);
  s.x.assign(s.x.size(), 0.0f);
  for (int64_t row = 0; row < T * B; ++row) {
    s.ids.push_back(random.integer(0, shape.input_size - 1));
    s.x[static_cast<size_t>(row * shape.input_size + s.ids.back())] = 1.0f;
  }
  return s;
}

Sequence random_input(const SourceStack &stack, int64_t T, int64_t B, uint64_t seed) {
  const bool takes_ids = stack.precision().activations == ActivationType::ids;
  return takes_ids ? random_ids(stack.shape, T, B, seed) : random_sequence(stack.shape, T, B, seed);
}

std::vector<int64_t> random_lengths(int64_t T, int64_t B, uint64_t seed) {
  Random random(seed);
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < B; ++i)
    lengths.push_back(random.integer(1, static_cast<int>(T)));
  return lengths;
}

Sequence Sequence::steps(int64_t begin, int64_t end) const {
  Sequence part = *this;
  const int64_t step = B * shape.input_size;
  part.T = end - begin;
  part.x.assign(x.begin() + begin * step, x.begin() + end * step);
  return part;
}

Sequence Sequence::row(int64_t row, int64_t length) const {
  Sequence one{shape, length, 1, {}, {}, {}, {}};
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
  if (!s.ids.empty()) {
    a.x = s.ids.data();
    a.id_type = IdType::int64;
    a.x_row_stride = 1;
    a.x_time_stride = s.B;
  }
  a.y_row_stride = s.y_columns();
  a.y_time_stride = s.B * a.y_row_stride;
  a.h0 = s.h0.data();
  a.c0 = s.c0.data();
  a.h_n = result.h.data();
  a.c_n = result.c.data();
  return a;
}

namespace {

template <class Run>
Result result_of(const Run &run, const Sequence &sequence, int threads,
                 const std::vector<int64_t> &lengths) {
  Result result;
  LstmArguments a = arguments_for(sequence, result);
  a.threads = threads;
  if (!lengths.empty())
    a.lengths = lengths.data();
  run(a);
  return result;
}

} // namespace

Result forward(const std::vector<uint8_t> &packed, const Sequence &sequence, int threads,
               const std::vector<int64_t> &lengths) {
  const auto run = [&](const LstmArguments &a) { lstm_forward(packed.data(), packed.size(), a); };
  return result_of(run, sequence, threads, lengths);
}

Result forward(const std::vector<uint8_t> &packed, const Sequence &sequence, const Split &split,
               const std::vector<int64_t> &lengths) {
  const PackedStack stack(packed.data(), packed.size());
  return result_of([&](const LstmArguments &a) { run_stack(stack, a, &split); }, sequence,
                   split.threads, lengths);
}

Result forward(const Lstm &lstm, const Sequence &sequence, int threads,
               const std::vector<int64_t> &lengths) {
  return result_of([&](const LstmArguments &a) { lstm.forward(a); }, sequence, threads, lengths);
}

void check_same(const Result &found, const Result &expected) {
  CHECK_SAME(found.y, expected.y);
  CHECK_SAME(found.h, expected.h);
  CHECK_SAME(found.c, expected.c);
}

} // namespace lstm_fastkernels
