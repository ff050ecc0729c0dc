// Checks of what stands behind the records of a packed form, in the terms that all layouts share:
// it may come from a file, and kernels believe it. What passes is what PackPlan may have written.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "weights/packed_stack.h"

namespace lstm_fastkernels {

// Throws Error that names what belongs to a cell: weight_hh_l0, bias_l1_reverse.
[[noreturn]] void refuse_packed(const std::string &name, const std::string &what);

// What a scan found of a row.
struct RowTotals {
  int64_t sum = 0, magnitude = 0;
};

// The rows of a packed matrix, padding among them, counted as they lie.
class PackedRows {
public:
  PackedRows(const std::string &name, const MatrixShape &shape, int64_t height);

  const std::string &name() const { return name_; }
  const MatrixShape &shape() const { return shape_; }
  // Adds what a scan took; row_of(byte) is the row of a unit's byte, negative for one that counts
  // nowhere.
  template <class Scan, class RowOf> void take(Scan &scan, const RowOf &row_of) {
    scan.take([&](int byte, int64_t sum, int64_t magnitude) {
      const int64_t row = row_of(byte);
      if (row < 0)
        return;
      rows_[static_cast<size_t>(row)].sum += sum;
      rows_[static_cast<size_t>(row)].magnitude += magnitude;
    });
  }
  const RowTotals &operator[](int64_t row) const { return rows_[static_cast<size_t>(row)]; }
  int64_t count() const { return static_cast<int64_t>(rows_.size()); }

  // What the weights allow. Refuses floats that are not finite, weights in rows of padding.
  template <class Scan> Proof prove(const Scan &scan) const {
    if (!scan.finite())
      refuse_packed(name_, "weights must be finite");
    return prove(scan.pair_safe());
  }
  // Refuses scales, `count` a row, that are not finite or negative; 1 is the only one of float32.
  void check_scales(const void *scales, bool is_float, int64_t count = 1) const;

private:
  Proof prove(bool pair_safe) const;

  const std::string name_;
  const MatrixShape shape_;
  const int64_t height_;
  std::vector<RowTotals> rows_;
};

// Refuses a bias that is not finite; `rows` is gates_shape.
void check_bias(const std::string &name, const MatrixShape &rows, int64_t height, const void *bias);

// Calls check(matrix, its shape, its name) for the parts of all matrices of a stack; checks its
// biases.
template <class Layers, class Check>
void check_stack(const LstmShape &shape, const Layers &layers, int64_t height, const Check &check) {
  for_each_matrix(shape, layers, check);
  for (int64_t cell = 0; cell < shape.num_cells(); ++cell)
    check_bias("bias" + cell_suffix(shape, cell), gates_shape(shape), height,
               layers[static_cast<size_t>(cell)].bias);
}

} // namespace lstm_fastkernels
