// One streaming step on the bare kernels, without Python and torch around it: dense against
// block-sparse, on a layer with random weights of which random blocks stay. sparse.py links it
// to the library and runs it; LSTM_FASTKERNELS_ISA picks the instruction set.
//
//   step INPUT_SIZE HIDDEN_SIZE BATCH DENSITY BLOCK_ROWS BLOCK_COLUMNS both|hh THREADS ROUNDS
//
// Prints JSON: the packed bytes and the microseconds of a call in each round. Fails if the sparse
// kernels give other integers than the dense ones.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "lstm_fastkernels/model.h"
#include "lstm_fastkernels/weights.h"

namespace {

using namespace lstm_fastkernels;

constexpr double kMinSeconds = 0.004; // of the timed calls of a round
constexpr int kBlockRows = 8, kBlockColumns = 4;

std::mt19937 generator(1);

std::vector<float> normal(size_t count, float deviation) {
  std::normal_distribution<float> distribution(0, deviation);
  std::vector<float> values(count);
  for (float &value : values)
    value = distribution(generator);
  return values;
}

struct Pruning {
  double density;
  int64_t rows, columns; // of a block; they divide the matrix
};

// A random matrix of four gates in every form that the kernels take.
class Source {
public:
  Source(int64_t hidden_size, int64_t columns, const Pruning &pruning)
      : rows_(4 * hidden_size), columns_(columns), is_pruned_(pruning.density < 1),
        floats_(normal(static_cast<size_t>(rows_ * columns), 28)) {
    prune(hidden_size, pruning);
    const float scale = 1 / (28 * std::sqrt(static_cast<float>(hidden_size)));
    scales_.assign(static_cast<size_t>(rows_), scale);
    for (float &weight : floats_) {
      // In +-64 all pairs of neighbours are what the fastest int8 products take.
      weights_.push_back(static_cast<int8_t>(std::clamp(std::round(weight), -64.0f, 64.0f)));
      weight *= scale;
    }
    cut();
  }

  WeightMatrix dense(Precision precision) const {
    if (precision.weights == WeightType::float32)
      return {precision, floats_.data()};
    return {precision, weights_.data(), scales_.data()};
  }
  WeightMatrix sparse(Precision precision) const {
    WeightMatrix matrix = dense(precision);
    if (!is_pruned_)
      return matrix;
    matrix.weights = precision.weights == WeightType::float32
                         ? static_cast<const void *>(float_blocks_.data())
                         : blocks_.data();
    matrix.num_blocks = static_cast<int64_t>(col_indices_.size());
    matrix.block_rows = kBlockRows;
    matrix.block_columns = kBlockColumns;
    matrix.crow_indices = crow_indices_.data();
    matrix.col_indices = col_indices_.data();
    return matrix;
  }

private:
  // Of each gate, `density` of the blocks stay.
  void prune(int64_t hidden_size, const Pruning &pruning) {
    const int64_t across = columns_ / pruning.columns;
    std::vector<int64_t> order(static_cast<size_t>(hidden_size / pruning.rows * across));
    const double stay = std::max(1.0, std::round(pruning.density * order.size()));
    for (int64_t gate = 0; gate < 4; ++gate) {
      std::iota(order.begin(), order.end(), 0);
      std::shuffle(order.begin(), order.end(), generator);
      for (size_t i = static_cast<size_t>(stay); i < order.size(); ++i) {
        const int64_t row = gate * hidden_size + order[i] / across * pruning.rows;
        const int64_t column = order[i] % across * pruning.columns;
        for (int64_t r = row; r < row + pruning.rows; ++r)
          std::fill_n(floats_.begin() + r * columns_ + column, pruning.columns, 0.0f);
      }
    }
  }

  // Cuts the weights into blocks and keeps those that are not zero.
  void cut() {
    crow_indices_.push_back(0);
    for (int64_t row = 0; row < rows_; row += kBlockRows) {
      for (int64_t column = 0; column < columns_; column += kBlockColumns) {
        const auto integers = block(weights_, row, column);
        if (std::all_of(integers.begin(), integers.end(), [](int8_t w) { return w == 0; }))
          continue;
        const auto floats = block(floats_, row, column);
        blocks_.insert(blocks_.end(), integers.begin(), integers.end());
        float_blocks_.insert(float_blocks_.end(), floats.begin(), floats.end());
        col_indices_.push_back(static_cast<int32_t>(column / kBlockColumns));
      }
      crow_indices_.push_back(static_cast<int32_t>(col_indices_.size()));
    }
  }
  template <class T>
  std::vector<T> block(const std::vector<T> &matrix, int64_t row, int64_t column) const {
    std::vector<T> values;
    for (int64_t r = row; r < row + kBlockRows; ++r) {
      const auto first = matrix.begin() + r * columns_ + column;
      values.insert(values.end(), first, first + kBlockColumns);
    }
    return values;
  }

  int64_t rows_, columns_;
  bool is_pruned_;
  std::vector<float> floats_, scales_, float_blocks_;
  std::vector<int8_t> weights_, blocks_;
  std::vector<int32_t> crow_indices_, col_indices_;
};

// One way to store and run the layer.
class Contestant {
public:
  Contestant(std::string name, const LstmShape &shape, const WeightMatrix &ih,
             const WeightMatrix &hh, const LstmArguments &arguments)
      : name(std::move(name)), arguments_(arguments), lstm_(pack(shape, {ih, hh, {}, nullptr})),
        y_(static_cast<size_t>(arguments.batch_size * shape.hidden_size)), c_n_(y_), h_n_(y_) {
    arguments_.y = y_.data();
    arguments_.h_n = h_n_.data();
    arguments_.c_n = c_n_.data();
  }

  size_t packed_bytes() const { return lstm_.packed_bytes(); }
  double seconds(long calls) const {
    const auto start = std::chrono::steady_clock::now();
    for (; calls > 0; --calls)
      lstm_.forward(arguments_);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  void calibrate() {
    while (seconds(calls_) < kMinSeconds)
      calls_ *= 2;
  }
  void take_turn() {
    seconds(1); // bring the weights back into the caches
    microseconds.push_back(seconds(calls_) / static_cast<double>(calls_) * 1e6);
  }
  const std::vector<float> &outputs() const { return y_; }

  std::string name;
  std::vector<double> microseconds;

private:
  static Lstm pack(const LstmShape &shape, const CellWeights &cell) { return Lstm(shape, &cell); }

  LstmArguments arguments_;
  Lstm lstm_;
  std::vector<float> y_, c_n_, h_n_;
  long calls_ = 1;
};

int run(char **argument) {
  LstmShape shape;
  shape.input_size = std::atoll(argument[1]);
  shape.hidden_size = std::atoll(argument[2]);
  const int64_t batch = std::atoll(argument[3]);
  const Pruning pruning{std::atof(argument[4]), std::atoll(argument[5]), std::atoll(argument[6])};
  const Pruning none{1, pruning.rows, pruning.columns};
  const bool hh_only = std::string(argument[7]) == "hh";
  const int threads = std::atoi(argument[8]), rounds = std::atoi(argument[9]);

  const Source ih(shape.hidden_size, shape.input_size, hh_only ? none : pruning);
  const Source hh(shape.hidden_size, shape.hidden_size, pruning);
  const auto x = normal(static_cast<size_t>(batch * shape.input_size), 1);
  const auto h0 = normal(static_cast<size_t>(batch * shape.hidden_size), 0.3f);
  const auto c0 = normal(h0.size(), 0.5f);
  LstmArguments arguments;
  arguments.time_steps = 1;
  arguments.batch_size = batch;
  arguments.x = x.data();
  arguments.x_row_stride = shape.input_size;
  arguments.y_row_stride = shape.hidden_size;
  arguments.h0 = h0.data();
  arguments.c0 = c0.data();
  arguments.threads = threads;

  std::vector<Contestant> contestants;
  const auto add = [&](const std::string &name, const WeightMatrix &of_x,
                       const WeightMatrix &of_h) {
    contestants.emplace_back(name, shape, of_x, of_h, arguments);
  };
  for (const ActivationType activations : {ActivationType::int8, ActivationType::int16}) {
    const Precision precision{WeightType::int8, activations};
    const std::string name = activations == ActivationType::int8 ? "int8" : "int16";
    add(name + " sparse", ih.sparse(precision), hh.sparse(precision));
    add(name + " dense", ih.dense(precision), hh.dense(precision));
  }
  const Precision floats{WeightType::float32, ActivationType::float32};
  add("float32 sparse", ih.sparse(floats), hh.sparse(floats));

  for (Contestant &contestant : contestants)
    contestant.calibrate();
  for (const size_t sparse : {0, 2})
    if (contestants[sparse].outputs() != contestants[sparse + 1].outputs()) {
      std::fprintf(stderr, "step: %s is not equal to dense\n", contestants[sparse].name.c_str());
      return 1;
    }
  for (int round = 0; round < rounds; ++round)
    for (Contestant &contestant : contestants)
      contestant.take_turn();

  const char *separator = "{";
  for (const Contestant &contestant : contestants) {
    std::printf("%s\n  \"%s\": {\"packed_bytes\": %zu, \"us\": ", separator,
                contestant.name.c_str(), contestant.packed_bytes());
    char bracket = '[';
    for (const double us : contestant.microseconds) {
      std::printf("%c%.4f", bracket, us);
      bracket = ',';
    }
    std::printf("]}");
    separator = ",";
  }
  std::printf("\n}\n");
  return 0;
}

} // namespace

int main(int argc, char **argv) {
  if (argc != 10) {
    std::fprintf(stderr, "usage: step INPUT_SIZE HIDDEN_SIZE BATCH DENSITY BLOCK_ROWS "
                         "BLOCK_COLUMNS both|hh THREADS ROUNDS\n");
    return 2;
  }
  try {
    return run(argv);
  } catch (const std::exception &error) {
    std::fprintf(stderr, "step: %s\n", error.what());
    return 1;
  }
}
