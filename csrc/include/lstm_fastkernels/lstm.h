// Running a packed LSTM stack over sequences. No torch, no intrinsics.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lstm_fastkernels/api.h"
#include "lstm_fastkernels/data_type.h"
#include "lstm_fastkernels/weights.h"

namespace lstm_fastkernels {

// The shape that a packed buffer declares. Throws Error unless its header is consistent and the
// buffer exactly `bytes` long.
LSTM_FASTKERNELS_API LstmShape packed_shape(const void *packed, size_t bytes);

// A sequence and where its results go. Strides are in elements; the innermost dimension is
// contiguous. Rows of y may not overlap. No output may overlap an input, but h_n may be h0 and c_n
// may be c0.
struct LstmArguments {
  int64_t time_steps = 0; // >= 1
  int64_t batch_size = 0; // >= 0

  // x [time, row, input_size] and y [time, row, num_directions * output_size], of one type. Of an
  // LSTM that takes_ids, x is [time, row], each in 0..input_size - 1, of id_type.
  const void *x = nullptr;
  void *y = nullptr;
  DataType data_type = DataType::float32;
  IdType id_type = IdType::none;
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

  // [batch_size], all different, each in 0..state_batch-1: row i of the call has its states in row
  // state_rows[i] of [num_layers * num_directions, state_batch, columns]. Other rows are neither
  // read nor written. Null: states of batch_size rows, in their order. On the CPU only.
  const int64_t *state_rows = nullptr;
  int64_t state_batch = 0;

  int threads = 1; // at most so many, and as processors that the process may use; 0 is 1
};

// Runs the stack. `packed` is what PackPlan writes; all of it is checked at each call, in a pass
// over the weights: Lstm checks once. The result does not depend on threads, batch size, chunking
// of the sequence or instruction set. A row with a non-finite x, h0 or c0 is NaN from that step on.
// Throws Error for arguments and ids out of range and for other bytes, naming the matrix;
// std::bad_alloc on allocation failure.
LSTM_FASTKERNELS_API void lstm_forward(const void *packed, size_t bytes,
                                       const LstmArguments &arguments);

// Frees what is kept between calls: scratch memory of threads, up to 32 MB each, and idle worker
// threads, which end by themselves after 10 seconds. Calls that run keep theirs, later ones take
// new. Any thread may call it.
LSTM_FASTKERNELS_API void release_memory();

// How a matrix is stored and multiplied on the CPU.
struct MatrixPlan {
  std::string name;
  Precision precision;
  int64_t rank = 0; // of a factor, named ..._u or ..._v; 0 where a matrix is not low-rank
  int64_t ids = 0;  // of a table, which has no blocks; 0 of others
  bool block_sparse = false;
  int64_t blocks = 0;   // of 8 x 4
  int64_t nonzero = 0;  // blocks
  int64_t stored = 0;   // blocks, with those that fill up lists; all of them where dense
  std::string products; // how they are formed, and why
};

// How a call would run on the CPU, and why.
struct CallPlan {
  bool empty = false; // no rows: nothing runs
  std::string_view isa;
  bool best_isa = false; // the best one allowed here
  int threads = 1;
  int threads_asked = 1, threads_allowed = 1; // no more than this process may use processors
  int64_t directions = 1, rows = 0;
  int64_t row_ranges = 1;           // parts that the rows are taken in
  int64_t team = 1;                 // threads that share the weights for a part and direction
  int64_t layers_at_once = 1;       // each on a thread, on chunks that the one below has done
  int64_t products = 0;             // of the whole call
  int64_t products_for_threads = 0; // more than one thread pays from so many on
  // The same in a call that begins within 50 microseconds of the end of this thread's last one, or
  // an eighth of what that took, up to a millisecond, when others are still awake. The other
  // members are of a call that does not.
  int64_t products_for_awake_threads = 0;
  std::vector<MatrixPlan> matrices; // in the order of matrix_names; U before V
};

// What lstm_forward would do now. Of the arguments' memory, only lengths and batch_sizes are read.
// Throws as lstm_forward does.
LSTM_FASTKERNELS_API CallPlan explain(const void *packed, size_t bytes,
                                      const LstmArguments &arguments);

// The same in words: a line on the instruction set, one on the threads, then one for each matrix.
LSTM_FASTKERNELS_API std::vector<std::string> describe(const CallPlan &plan);

} // namespace lstm_fastkernels
