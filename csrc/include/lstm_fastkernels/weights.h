// The weights of a stack: as a caller has them, and packed for the kernels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lstm_fastkernels/api.h"
#include "lstm_fastkernels/precision.h"
#include "lstm_fastkernels/shape.h"

namespace lstm_fastkernels {

// One matrix [rows, columns]: int8 with one scale a row (value = weight * scale, the
// scale finite and not negative), or finite float32 without scales. Contiguous. Or int4, integers
// in -8..7 in two's complement: two columns a byte, the even one in its low half, [rows,
// ceil(columns / 2)], zero where a last column is missing; with a scale for each group of columns,
// [rows, ceil(columns / group_size)], the last group may be short. Dense alone.
//
// Or a table for token ids, which takes the place of the product with a row that is 1 in one column
// and else 0: [columns, rows], transposed, so that each id has a row of its own; finite float32 or
// float16. Dense alone.
//
// Dense: row-major. Block-sparse, as torch's BSR: `weights` are blocks [num_blocks, block_rows,
// block_columns]; crow_indices [block rows of the matrix + 1] says where each block row begins;
// col_indices [num_blocks] are the blocks' columns in blocks, increasing within a block row.
// block_rows is a multiple of 8, block_columns of 4. The four gates are padded to whole block rows,
// each by itself, and the columns to whole blocks; padding is zero. Zeros are skipped by blocks of
// 8 x 4, also where the blocks are larger.
//
// Low-rank: this is U [rows, rank], `v` is V [rank, columns], and the matrix is U V: both have the
// precision and are multiplied one after the other.
struct WeightMatrix {
  Precision precision;
  const void *weights = nullptr;
  const float *scales = nullptr;
  int64_t num_blocks = 0, block_rows = 0, block_columns = 0;
  const int32_t *crow_indices = nullptr; // null: dense
  const int32_t *col_indices = nullptr;
  int64_t group_size = 0; // of int4: 32, 64 or 128 columns
  int64_t rank = 0;       // 0: not low-rank
  const WeightMatrix *v = nullptr;
};

// Weights of a cell; gate order i, f, g, o as in nn.LSTM.
struct CellWeights {
  WeightMatrix ih;             // [4 hidden_size, layer_input_size]
  WeightMatrix hh;             // [4 hidden_size, output_size]
  WeightMatrix hr;             // [proj_size, hidden_size]; ignored without projection
  const float *bias = nullptr; // [4 hidden_size], b_ih + b_hh; null: zeros
};

// Whether quantizing keeps neighbours (2k, 2k + 1) of a row within -128..128 in sum, which AVX2
// multiplies by int8 activations nearly twice as fast. `automatic` does where it at most doubles
// the squared error of the matrix.
enum class PairSafe { automatic, always, never };

// Quantizes each row of a matrix [rows, columns], contiguous, to int8 with one scale: weights that
// are int8 times a scale, in float32, come back exactly; of others the row's squared error is small
// and the integers are in [-127, 127]. `quantized` [rows, columns], `scales` [rows]. The result
// does not depend on the machine nor, for a given rule, a row on others. Throws Error for a row
// without columns or with a weight that is not finite.
LSTM_FASTKERNELS_API void quantize_rows(const float *weight, int64_t rows, int64_t columns,
                                        PairSafe pair_safe, int8_t *quantized, float *scales);

// Quantizes each group of columns of each row to 4-bit integers in -8..7 with one scale, as
// quantize_rows does rows: weights that are such integers times a scale come back exactly.
// `quantized` [rows, ceil(columns / 2)], `scales` [rows, ceil(columns / group_size)] are as
// WeightMatrix has them. Throws Error as quantize_rows does, and for another group size than 32, 64
// and 128.
LSTM_FASTKERNELS_API void quantize_groups(const float *weight, int64_t rows, int64_t columns,
                                          int64_t group_size, uint8_t *quantized, float *scales);

// Cells validated, and how they are packed for the CPU. The cells must live as long.
class LSTM_FASTKERNELS_API PackPlan {
public:
  // Throws Error, naming the matrix, for a shape that validate refuses, a scale, weight or bias
  // that is not finite, and block indices or padding that are not valid.
  PackPlan(const LstmShape &shape, const CellWeights *cells);
  ~PackPlan();
  PackPlan(const PackPlan &) = delete;

  size_t bytes() const;
  // Fills `packed`, bytes() long, at any alignment. Throws Error for another length.
  void write(void *packed, size_t bytes) const;

private:
  struct Plan;
  std::unique_ptr<const Plan> plan_;
};

// A tensor as it lies in memory or in a file: row-major, little-endian, at any alignment.
struct TensorView {
  std::string name;
  std::string dtype; // as safetensors has it: "F32", "F16", "BF16", "I8", "I32", ...
  std::vector<int64_t> shape;
  const void *data = nullptr;
  size_t bytes = 0;
};

// Whether an LSTM whose matrices have these precisions, one for each of matrix_names(shape), reads
// token ids: the first layer's weight_ih are tables. Throws Error where only one of them is, or
// another matrix.
LSTM_FASTKERNELS_API bool takes_ids(const LstmShape &shape,
                                    const std::vector<Precision> &precisions);

// The canonical tensors of a stack, found by name (docs/file_format.md says which there are):
// weight_ih_l0 and the like, each with its ..._scale where it is int8 or int4; or, where a matrix
// is block-sparse, its ..._values, ..._crow_indices and ..._col_indices; or, where it is low-rank,
// its ..._u and ..._v, each with a scale as a matrix has it; or, for token ids, its ..._table;
// bias_l0 and the like.
class LSTM_FASTKERNELS_API CanonicalTensors {
public:
  // `precisions` has one for each of matrix_names(shape). The tensors' memory must live as long.
  // Throws Error, naming the tensor, for one that is missing, of another dtype or shape, or of no
  // use; and for sizes that would take gigabytes while the tensors take next to nothing.
  CanonicalTensors(const LstmShape &shape, bool bias, const std::vector<Precision> &precisions,
                   std::map<std::string, TensorView> tensors);
  ~CanonicalTensors();
  CanonicalTensors(const CanonicalTensors &) = delete;

  const CellWeights *cells() const; // [num_cells]

private:
  struct Collected;
  std::unique_ptr<const Collected> collected_;
};

} // namespace lstm_fastkernels
