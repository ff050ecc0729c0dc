// The sizes of a stack of LSTM layers, and the names of its matrices.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lstm_fastkernels/api.h"
#include "lstm_fastkernels/error.h"

namespace lstm_fastkernels {

// Sizes and dimensions of a stack, with nn.LSTM's meaning. proj_size 0: no projection. One layer
// and direction is a cell; cells are numbered layer * num_directions + direction.
struct LstmShape {
  int64_t input_size = 0;
  int64_t hidden_size = 0;
  int64_t proj_size = 0;
  int64_t num_layers = 1;
  int64_t num_directions = 1;

  int64_t num_cells() const { return num_layers * num_directions; }
  int64_t output_size() const { return proj_size ? proj_size : hidden_size; }
  // Columns of weight_ih of a layer.
  int64_t layer_input_size(int64_t layer) const {
    return layer == 0 ? input_size : num_directions * output_size();
  }
};

inline bool operator==(const LstmShape &a, const LstmShape &b) {
  return a.input_size == b.input_size && a.hidden_size == b.hidden_size &&
         a.proj_size == b.proj_size && a.num_layers == b.num_layers &&
         a.num_directions == b.num_directions;
}

// Throws Error unless 1 <= sizes < 65536 and 0 <= proj_size < hidden_size.
LSTM_FASTKERNELS_API void validate(const LstmShape &shape);

// The shape of {input_size, hidden_size, proj_size, num_layers, num_directions}: what travels where
// only integers do. Throws Error for another count, and as validate does.
LSTM_FASTKERNELS_API LstmShape shape_from(const std::vector<int64_t> &sizes);

// What nn.LSTM appends to the names of a cell's tensors: _l0, _l0_reverse.
LSTM_FASTKERNELS_API std::string cell_suffix(const LstmShape &shape, int64_t cell);

enum class MatrixKind { ih, hh, hr };

// A matrix of a stack.
struct MatrixName {
  std::string name; // weight_ih_l0, weight_hr_l1_reverse, ...
  MatrixKind kind = MatrixKind::ih;
  int64_t cell = 0;
  int64_t rows = 0, columns = 0;
  int64_t gates = 4; // its rows are so many gates; 1 for weight_hr
};

// All of them in their one order: cell by cell weight_ih, weight_hh and, with a projection,
// weight_hr.
LSTM_FASTKERNELS_API std::vector<MatrixName> matrix_names(const LstmShape &shape);

} // namespace lstm_fastkernels
