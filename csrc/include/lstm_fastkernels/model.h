// A loaded LSTM stack and the states it runs on: what most programs need.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lstm_fastkernels/lstm.h"

namespace lstm_fastkernels {

class File;

// h and c of a batch of sequences, float32: the memory of a stream. Copies are independent.
class LSTM_FASTKERNELS_API State {
public:
  // Zeros. Throws Error for a shape that validate refuses or a negative batch size.
  explicit State(const LstmShape &shape, int64_t batch_size = 1);

  int64_t batch_size() const { return batch_size_; }
  int64_t layers() const { return layers_; }           // num_layers * num_directions
  int64_t output_size() const { return output_size_; } // of h
  int64_t hidden_size() const { return hidden_size_; } // of c

  // h [layers, batch_size, output_size] and c [layers, batch_size, hidden_size], contiguous.
  float *h() { return h_.data(); }
  const float *h() const { return h_.data(); }
  float *c() { return c_.data(); }
  const float *c() const { return c_.data(); }

  // Zeros, of all rows or of one. Throw Error for a row that does not exist.
  void reset();
  void reset_row(int64_t row);
  // Row from_row of `from`, which may have another batch size. Throws Error where the states are of
  // different LSTMs.
  void copy_row(int64_t row, const State &from, int64_t from_row);

  // As saved_bytes() bytes that describe themselves, the same on every machine; and back. save
  // throws Error for another number of bytes, restore with ErrorCode::invalid_file for other bytes.
  size_t saved_bytes() const;
  void save(void *saved, size_t bytes) const;
  static State restore(const void *saved, size_t bytes);

private:
  State(int64_t layers, int64_t output_size, int64_t hidden_size, int64_t batch_size);
  void check_row(int64_t row) const;

  int64_t layers_, output_size_, hidden_size_, batch_size_;
  std::vector<float> h_, c_;
};

struct ForwardOptions {
  // In elements, the innermost dimension is contiguous; 0: as if there were no gaps.
  int64_t x_time_stride = 0, x_row_stride = 0;
  int64_t y_time_stride = 0, y_row_stride = 0;
  // [batch_size], each in 1..time_steps: y is zero past a row's length, its state the one there.
  const int64_t *lengths = nullptr;
  int threads = 1; // at most so many, see LstmArguments
};

// Packed weights, ready to run. Copies share them. Any number of threads may run one Lstm at once,
// each with states of its own.
class LSTM_FASTKERNELS_API Lstm {
public:
  // The cells are copied. Throws Error as PackPlan does.
  Lstm(const LstmShape &shape, const CellWeights *cells);

  // The LSTM that was saved under this name, "" for one that was saved by itself. It is packed into
  // memory of its own; but if the file is mapped and holds it packed, by this version and from the
  // tensors that it has now, it runs from the file. Declared here, defined in
  // lstm_fastkernels::file. Throws Error, naming the file and the tensor, also for packed weights
  // that are damaged.
  static Lstm load(const File &file, std::string_view name = "");

  const LstmShape &shape() const;
  // Whether x is token ids in 0..input_size - 1: those that were folded into its first layer.
  bool takes_ids() const;
  size_t packed_bytes() const; // that the kernels read
  bool shares_file() const;    // whether they lie in the memory of its file

  // y [time_steps, batch_size, num_directions * output_size] from x [time_steps, batch_size,
  // input_size]; goes on from `state` and leaves the last one there. x and y must not overlap.
  // Throws Error, and then neither y nor state is changed.
  void forward(const float *x, int64_t time_steps, int64_t batch_size, State &state, float *y,
               const ForwardOptions &options = {}) const;

  // The same for an LSTM that takes_ids, ids [time_steps, batch_size].
  void forward_ids(const int32_t *ids, int64_t time_steps, int64_t batch_size, State &state,
                   float *y, const ForwardOptions &options = {}) const;
  void forward_ids(const int64_t *ids, int64_t time_steps, int64_t batch_size, State &state,
                   float *y, const ForwardOptions &options = {}) const;

  // One time step of state.batch_size() rows. Allocates nothing once this thread has made a step of
  // this size, unless that takes more than 32 MB of scratch memory.
  void step(const float *x, State &state, float *y) const {
    forward(x, 1, state.batch_size(), state, y);
  }
  template <class Id> void step_ids(const Id *ids, State &state, float *y) const {
    forward_ids(ids, 1, state.batch_size(), state, y);
  }

  // Everything there is: other data types, a PackedSequence, states elsewhere.
  void forward(const LstmArguments &arguments) const;

private:
  void run(const void *x, IdType id_type, int64_t time_steps, int64_t batch_size, State &state,
           float *y, const ForwardOptions &options) const;

  struct Packed;
  explicit Lstm(std::shared_ptr<const Packed> packed) : packed_(std::move(packed)) {}
  // Of packed weights in `memory`, if packed_from (weights/packed_origin.h) takes them.
  static std::optional<Lstm> in_place(std::shared_ptr<const void> memory, const void *packed,
                                      size_t bytes, const std::string &hash, const LstmShape &shape,
                                      const std::vector<Precision> &precisions,
                                      const std::map<std::string, TensorView> &tensors);

  std::shared_ptr<const Packed> packed_;
};

} // namespace lstm_fastkernels
