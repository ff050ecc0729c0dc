// Canonical tensors from a packed form, whatever its layout: packing backwards. What it was made
// from comes back bit by bit, but for zeros that were not packed: 8 x 4 weights of blocks, and of
// float32 matrices for CUDA, that are all 0 or -0 come back as 0. A block of the caller's that has
// no other weight is left out.
//
// A layout's Reader says how a matrix is read:
//
//   kHeight         rows of a strip
//   for_each_piece  (matrix, shape, visit) calls visit(strip, column, weight) for what was packed
//                   of each strip of 8 rows and of the 4 columns from `column` on, in any order.
//                   weight(i, k) is one of them: int8_t, float or, of tables, a half's uint16_t
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "common/fail.h"
#include "weights/packed_stack.h"

namespace lstm_fastkernels {

// A canonical tensor that can be made.
struct UnpackedTensor {
  TensorView view;                   // without data
  std::function<void(void *)> write; // fills view.bytes of memory, at any alignment
};

// What a matrix has of a strip and of 4 columns.
template <class Weight> struct Piece {
  int64_t row, rows, column, columns;
  const Weight &weight; // (i, k), counted from the first row and column

  // Calls visit(row, column, weight), counted so.
  template <class Visit> void for_each_weight(const Visit &visit) const {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t k = 0; k < columns; ++k)
        visit(i, k, weight(i, k));
  }
  bool is_zero() const {
    bool zero = true;
    for_each_weight([&](int64_t, int64_t, auto value) { zero = zero && value == 0; });
    return zero;
  }
};

template <class Reader, class Matrix, class Visit>
void for_each_piece(const Matrix &m, const MatrixShape &shape, const Visit &visit) {
  Reader::for_each_piece(m, shape, [&](int64_t strip, int64_t column, const auto &weight) {
    visit(Piece<std::decay_t<decltype(weight)>>{
        shape.strip_start(strip), shape.strip_rows(strip), column,
        std::min<int64_t>(kBlockColumns, shape.columns - column), weight});
  });
}

// The caller's blocks that have a weight other than zero, as torch's BSR has them.
template <class Reader, class Matrix> class UnpackedBlocks {
public:
  UnpackedBlocks(const Matrix &m, const MatrixShape &shape)
      : m_(m), shape_(shape), grid_(shape, m.block_rows, m.block_columns),
        crow_indices_(static_cast<size_t>(grid_.block_rows() + 1)) {
    for_each_piece<Reader>(m_, shape_, [&](const auto &piece) {
      if (!piece.is_zero())
        places_.push_back(place_of(piece.row, piece.column));
    });
    std::sort(places_.begin(), places_.end());
    places_.erase(std::unique(places_.begin(), places_.end()), places_.end());
    for (const int64_t place : places_) {
      col_indices_.push_back(static_cast<int32_t>(place % grid_.blocks_a_row));
      ++crow_indices_[static_cast<size_t>(place / grid_.blocks_a_row) + 1];
    }
    std::partial_sum(crow_indices_.begin(), crow_indices_.end(), crow_indices_.begin());
  }

  int64_t count() const { return static_cast<int64_t>(places_.size()); }
  const std::vector<int32_t> &crow_indices() const { return crow_indices_; }
  const std::vector<int32_t> &col_indices() const { return col_indices_; }
  // Into zeroed memory.
  void read_values(uint8_t *to) const {
    for_each_piece<Reader>(m_, shape_, [&](const auto &piece) {
      if (piece.is_zero())
        return;
      const auto place =
          std::lower_bound(places_.begin(), places_.end(), place_of(piece.row, piece.column));
      const int64_t row =
          (place - places_.begin()) * m_.block_rows + piece.row % grid_.gate_rows % m_.block_rows;
      const int64_t column = piece.column % m_.block_columns;
      piece.for_each_weight([&](int64_t i, int64_t k, auto weight) {
        lstm_fastkernels::write(to, (row + i) * m_.block_columns + column + k, weight);
      });
    });
  }

private:
  // Of the block in the grid, row by row.
  int64_t place_of(int64_t row, int64_t column) const {
    const int64_t block_row =
        row / grid_.gate_rows * grid_.block_rows_a_gate + row % grid_.gate_rows / m_.block_rows;
    return block_row * grid_.blocks_a_row + column / m_.block_columns;
  }

  Matrix m_;
  MatrixShape shape_;
  BlockGrid grid_;
  std::vector<int64_t> places_;
  std::vector<int32_t> crow_indices_, col_indices_;
};

template <class Reader> class Unpacking {
public:
  // A matrix that is not low-rank, or a factor.
  template <class Matrix>
  void add_matrix(const std::string &name, const Matrix &m, const MatrixShape &shape) {
    const int64_t row_bytes = divide_up(shape.columns, 2); // of int4
    if (m.block_rows)
      add_blocks(name, m, shape);
    else if (is_table(m.precision))
      add_weights(name + "_table", {shape.columns, shape.rows}, m, shape,
                  [=](uint8_t *to, int64_t row, int64_t id, auto weight) {
                    lstm_fastkernels::write(to, id * shape.rows + row, weight);
                  });
    else if (m.precision.weights == WeightType::int4)
      add_weights(name, {shape.rows, row_bytes}, m, shape,
                  [=](uint8_t *to, int64_t row, int64_t column, auto weight) {
                    to[row * row_bytes + column / 2] |= static_cast<uint8_t>(
                        (static_cast<int>(weight) & 15) << (column % 2 ? 4 : 0));
                  });
    else
      add_weights(name, {shape.rows, shape.columns}, m, shape,
                  [=](uint8_t *to, int64_t row, int64_t column, auto weight) {
                    lstm_fastkernels::write(to, row * shape.columns + column, weight);
                  });
    if (m.precision.weights == WeightType::int4)
      add_floats(name + "_scale", m.scales, shape, {shape.rows, m.scale_groups});
    else if (m.precision.weights == WeightType::int8)
      add_floats(name + "_scale", m.scales, shape, {shape.rows});
  }

  // A row's values, one or those of the last dimension.
  void add_floats(const std::string &name, const void *section, const MatrixShape &shape,
                  const std::vector<int64_t> &sizes) {
    const int64_t count = sizes.size() == 2 ? sizes[1] : 1;
    add_tensor(name, "F32", sizes, [=](uint8_t *to) {
      for_each_row_value(shape, Reader::kHeight, count, [&](int64_t row, int64_t i, int64_t place) {
        lstm_fastkernels::write(to, row * count + i,
                                read<float>(static_cast<const uint8_t *>(section), place));
      });
    });
  }

  std::vector<UnpackedTensor> tensors;

private:
  static const char *dtype_of(Precision precision) {
    switch (precision.weights) {
    case WeightType::int8:
      return "I8";
    case WeightType::int4:
      return "U8";
    case WeightType::float16:
      return "F16";
    default:
      return "F32";
    }
  }

  // put(to, row, column, weight) for each weight.
  template <class Matrix, class Put>
  void add_weights(const std::string &name, const std::vector<int64_t> &sizes, const Matrix &m,
                   const MatrixShape &shape, const Put &put) {
    add_tensor(name, dtype_of(m.precision), sizes, [=](uint8_t *to) {
      for_each_piece<Reader>(m, shape, [&](const auto &piece) {
        piece.for_each_weight([&](int64_t i, int64_t k, auto weight) {
          put(to, piece.row + i, piece.column + k, weight);
        });
      });
    });
  }

  template <class Matrix>
  void add_blocks(const std::string &name, const Matrix &m, const MatrixShape &shape) {
    const auto blocks = std::make_shared<const UnpackedBlocks<Reader, Matrix>>(m, shape);
    add_tensor(name + "_values", dtype_of(m.precision),
               {blocks->count(), m.block_rows, m.block_columns},
               [=](uint8_t *to) { blocks->read_values(to); });
    const auto add_indices = [&](const char *part, const std::vector<int32_t> &indices) {
      add_tensor(name + part, "I32", {static_cast<int64_t>(indices.size())},
                 [blocks, &indices](uint8_t *to) {
                   for (size_t i = 0; i < indices.size(); ++i)
                     lstm_fastkernels::write(to, static_cast<int64_t>(i), indices[i]);
                 });
    };
    add_indices("_crow_indices", blocks->crow_indices());
    add_indices("_col_indices", blocks->col_indices());
  }

  // fill(to) writes into zeroed memory.
  template <class Fill>
  void add_tensor(const std::string &name, const std::string &dtype,
                  const std::vector<int64_t> &sizes, const Fill &fill) {
    int64_t bytes = dtype == "I8" || dtype == "U8" ? 1 : dtype == "F16" ? 2 : 4;
    for (const int64_t size : sizes)
      if (__builtin_mul_overflow(bytes, size, &bytes))
        fail("packed weights: " + name + " is too large");
    const auto write = [fill, bytes](void *memory) {
      uint8_t *const to = static_cast<uint8_t *>(memory);
      std::fill_n(to, bytes, uint8_t{0});
      fill(to);
    };
    tensors.push_back({{name, dtype, sizes, nullptr, static_cast<size_t>(bytes)}, write});
  }
};

// The tensors of all matrices in the order of matrix_names, then the biases, which are zeros where
// the packed form was made without; named as CanonicalTensors has them. The packed bytes must live
// as long.
template <class Reader, class Layers>
std::vector<UnpackedTensor> unpack_stack(const LstmShape &shape, const Layers &layers) {
  Unpacking<Reader> unpacking;
  for_each_matrix(shape, layers,
                  [&](const auto &m, const MatrixShape &of, const std::string &name) {
                    unpacking.add_matrix(name, m, of);
                  });
  for (int64_t cell = 0; cell < shape.num_cells(); ++cell)
    unpacking.add_floats("bias" + cell_suffix(shape, cell), layers[static_cast<size_t>(cell)].bias,
                         gates_shape(shape), {4 * shape.hidden_size});
  return std::move(unpacking.tensors);
}

} // namespace lstm_fastkernels
