// A compressed LSTM stack: pack it once, run it over sequences. No torch, no intrinsics.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "lstm_fastkernels/api.h"
#include "lstm_fastkernels/data_type.h"
#include "lstm_fastkernels/error.h"

namespace lstm_fastkernels {

// Sizes and dimensions of a stack, with nn.LSTM's meaning. proj_size 0: no projection.
struct LstmShape {
  int64_t input_size = 0;
  int64_t hidden_size = 0;
  int64_t proj_size = 0;
  int64_t num_layers = 1;
  int64_t num_directions = 1;
  // 8 or 16: int8 weights, and the integers that x and h are quantized to. 32: float32 weights, x
  // and h as they are.
  int activation_bits = 8;

  int64_t output_size() const { return proj_size ? proj_size : hidden_size; }
  // Columns of weight_ih of a layer.
  int64_t layer_input_size(int64_t layer) const {
    return layer == 0 ? input_size : num_directions * output_size();
  }
};

// Throws Error unless 1 <= sizes < 65536, 0 <= proj_size < hidden_size and
// activation_bits is 8, 16 or 32.
LSTM_FASTKERNELS_API void validate(const LstmShape &shape);

// What nn.LSTM appends to the names of layers[layer * num_directions + direction]: _l0,
// _l0_reverse.
LSTM_FASTKERNELS_API std::string layer_suffix(const LstmShape &shape, int64_t index);

// One matrix [rows, columns]: int8 in [-127, 127] with one scale a row (value = weight * scale, the
// scale finite and not negative), or finite float32 without scales. Contiguous.
//
// Dense: row-major. Block-sparse, as torch's BSR: `weights` are blocks [num_blocks, block_rows,
// block_columns]; crow_indices [block rows of the matrix + 1] says where each block row begins;
// col_indices [num_blocks] are the blocks' columns in blocks, increasing within a block row.
// block_rows is a multiple of 8, block_columns of 4. The four gates are padded to whole block rows,
// each by itself, and the columns to whole blocks; padding is zero. Zeros are skipped by blocks of
// 8 x 4, also where the blocks are larger, and also in dense float32 matrices.
struct WeightMatrix {
  const void *weights = nullptr;
  const float *scales = nullptr;
  int64_t num_blocks = 0, block_rows = 0, block_columns = 0;
  const int32_t *crow_indices = nullptr; // null: dense
  const int32_t *col_indices = nullptr;
};

// Block rows of a matrix of so many rows: each of its gates, 4 of them or 1 for weight_hr, is
// padded to whole ones. Throws Error, naming the matrix, for block_rows outside 1..65535.
LSTM_FASTKERNELS_API int64_t count_block_rows(int64_t rows, int64_t gates, int64_t block_rows,
                                              const std::string &name);

// Weights of one layer and direction; gate order i, f, g, o as in nn.LSTM.
struct LayerWeights {
  WeightMatrix ih;             // [4 hidden_size, layer_input_size]
  WeightMatrix hh;             // [4 hidden_size, output_size]
  WeightMatrix hr;             // [proj_size, hidden_size]; ignored without projection
  const float *bias = nullptr; // [4 hidden_size], b_ih + b_hh; null: zeros
};

// Bytes of the packed form of layers[layer * num_directions + direction]. Throws
// Error, naming the matrix, for a shape that validate refuses, a weight of -128, a
// scale, weight or bias that is not finite, and block indices or padding that are not valid.
LSTM_FASTKERNELS_API size_t packed_bytes(const LstmShape &shape, const LayerWeights *layers);

// Packs the layers into `packed`, packed_bytes(shape, layers) long, any alignment. Throws as
// packed_bytes does.
LSTM_FASTKERNELS_API void pack(const LstmShape &shape, const LayerWeights *layers, void *packed,
                               size_t bytes);

// The shape that a packed buffer declares. Throws Error unless its header is
// consistent and the buffer exactly `bytes` long.
LSTM_FASTKERNELS_API LstmShape packed_shape(const void *packed, size_t bytes);

// A sequence and where its results go. Strides are in elements; the innermost dimension is
// contiguous. No output may overlap an input, but h_n may be h0 and c_n may be c0.
struct LstmArguments {
  int64_t time_steps = 0; // >= 1
  int64_t batch_size = 0; // >= 0

  // x [time, row, input_size] and y [time, row, num_directions * output_size], of one type.
  const void *x = nullptr;
  void *y = nullptr;
  DataType data_type = DataType::float32;
  int64_t x_time_stride = 0, x_row_stride = 0;
  int64_t y_time_stride = 0, y_row_stride = 0;

  // At most one of the two. lengths [batch_size], each in 1..time_steps: y is zero past a row's
  // length. batch_sizes [time_steps], not increasing, the first equal to batch_size: x and y are a
  // PackedSequence's data, rows of all time steps behind each other; time strides are ignored.
  const int64_t *lengths = nullptr;
  const int64_t *batch_sizes = nullptr;

  // States [num_layers * num_directions, batch_size, output_size or hidden_size], contiguous, of
  // one type. h0 and c0 null: zeros.
  const void *h0 = nullptr;
  const void *c0 = nullptr;
  void *h_n = nullptr;
  void *c_n = nullptr;
  DataType state_type = DataType::float32;

  int threads = 1; // at most so many
};

// Runs the stack. `packed` must come from pack(); its header is checked at each call. The result
// does not depend on threads, batch size, chunking of the sequence or instruction set. A row with a
// non-finite x, h0 or c0 is NaN from that step on. Throws Error for arguments out
// of range, std::bad_alloc where memory ends.
LSTM_FASTKERNELS_API void lstm_forward(const void *packed, size_t bytes,
                                       const LstmArguments &arguments);

// How lstm_forward would run a call now, and why: a line on the instruction set, one on the
// threads, then one for each matrix. Of the arguments' memory, only lengths and batch_sizes are
// read. Throws as lstm_forward does.
LSTM_FASTKERNELS_API std::vector<std::string> explain(const void *packed, size_t bytes,
                                                      const LstmArguments &arguments);

} // namespace lstm_fastkernels
