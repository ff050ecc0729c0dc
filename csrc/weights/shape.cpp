#include "lstm_fastkernels/shape.h"

#include "common/fail.h"

namespace lstm_fastkernels {
namespace {

constexpr int64_t kMaxSize = 65535;
constexpr int64_t kMaxLayers = 1024;

} // namespace

void validate(const LstmShape &shape) {
  const auto in_range = [](const char *name, int64_t value, int64_t low, int64_t high) {
    if (value < low || value > high)
      fail(std::string(name) + " must be in " + std::to_string(low) + ".." + std::to_string(high) +
           ", got " + std::to_string(value));
  };
  in_range("input_size", shape.input_size, 1, kMaxSize);
  in_range("hidden_size", shape.hidden_size, 1, kMaxSize);
  in_range("proj_size", shape.proj_size, 0, shape.hidden_size - 1);
  in_range("num_layers", shape.num_layers, 1, kMaxLayers);
  in_range("num_directions", shape.num_directions, 1, 2);
  if (shape.num_layers > 1)
    in_range("num_directions * output size", shape.layer_input_size(1), 1, kMaxSize);
}

LstmShape shape_from(const std::vector<int64_t> &sizes) {
  if (sizes.size() != 5)
    fail("an LSTM's shape has 5 sizes, got " + std::to_string(sizes.size()));
  const LstmShape shape{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]};
  validate(shape);
  return shape;
}

std::string cell_suffix(const LstmShape &shape, int64_t cell) {
  const bool reverse = cell % shape.num_directions == 1;
  return "_l" + std::to_string(cell / shape.num_directions) + (reverse ? "_reverse" : "");
}

std::vector<MatrixName> matrix_names(const LstmShape &shape) {
  const int64_t rows = 4 * shape.hidden_size;
  std::vector<MatrixName> names;
  for (int64_t cell = 0; cell < shape.num_cells(); ++cell) {
    const std::string suffix = cell_suffix(shape, cell);
    const int64_t columns = shape.layer_input_size(cell / shape.num_directions);
    names.push_back({"weight_ih" + suffix, MatrixKind::ih, cell, rows, columns, 4});
    names.push_back({"weight_hh" + suffix, MatrixKind::hh, cell, rows, shape.output_size(), 4});
    if (shape.proj_size)
      names.push_back(
          {"weight_hr" + suffix, MatrixKind::hr, cell, shape.proj_size, shape.hidden_size, 1});
  }
  return names;
}

} // namespace lstm_fastkernels
