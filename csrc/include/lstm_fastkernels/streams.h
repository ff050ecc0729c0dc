// Many streams through one LSTM, a time step at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "lstm_fastkernels/model.h"

namespace lstm_fastkernels {

struct TickOptions {
  // In elements, the innermost dimension is contiguous; 0: as if there were no gaps.
  int64_t x_row_stride = 0, y_row_stride = 0;
  DataType data_type = DataType::float32; // of x and y
  IdType id_type = IdType::none;          // of x, where the LSTM takes_ids
  int threads = 1;                        // at most so many, see LstmArguments
};

// The states of up to `capacity` streams, side by side, and a call that moves any of them on by one
// time step. A stream has the bits that it would have alone.
//
// A stream is named by a number, 0 or above. The number of one that has left is given to no other,
// and is refused. Functions throw Error for streams that are not there, for one that is given twice
// where each may be given once, and for other arguments out of range; then nothing has changed.
// Copies are independent. One thread may use a StreamBatch at a time.
class LSTM_FASTKERNELS_API StreamBatch {
public:
  // Without streams. The LSTM, which has one direction, may go: its weights are shared.
  StreamBatch(const Lstm &lstm, int64_t capacity);

  const Lstm &lstm() const { return lstm_; }
  int64_t capacity() const { return states_.batch_size(); }
  int64_t size() const { return capacity() - static_cast<int64_t>(free_.size()); }
  std::vector<int64_t> streams() const; // in ascending order
  bool has(int64_t stream) const;

  // A new stream of zeros. Throws Error where `capacity` streams are there.
  int64_t join();
  // A new one with the state of a stream.
  int64_t fork(int64_t stream);
  void leave(int64_t stream);
  // Zeros.
  void reset(int64_t stream);
  // Stream streams[i] takes the state that sources[i] had before the call, for all i in 0..count-1
  // at once. A stream is in `streams` once at most, in `sources` as often as you like.
  void reorder(const int64_t *streams, const int64_t *sources, int64_t count);

  // A stream's state, as the bytes of a State of one row; and back, for a stream that is there.
  // Errors as of State, and for a state of another LSTM or of other than one row.
  size_t saved_bytes() const { return saved_bytes_; }
  void save(int64_t stream, void *saved, size_t bytes) const;
  void restore(int64_t stream, const void *saved, size_t bytes);

  // One time step of `count` streams, each once at most: y [count, output size] from x [count,
  // input size], row i for streams[i]; if the LSTM takes_ids, x is token ids [count]. Other streams
  // keep their states. x and y must not overlap.
  // Allocates nothing once this thread has made a tick of this size, unless that takes more than
  // 32 MB of scratch memory.
  void tick(const int64_t *streams, int64_t count, const void *x, void *y,
            const TickOptions &options = {});

private:
  int64_t row_of(int64_t stream) const;
  // Rows of an argument that names streams; of one where they must differ.
  void take_rows(const char *name, const int64_t *streams, int64_t count, int64_t *rows) const;
  void take_own_rows(const int64_t *streams, int64_t count, int64_t *rows) const;

  Lstm lstm_;
  size_t saved_bytes_;
  State states_;                 // a stream's is row `stream % capacity`
  std::vector<int64_t> streams_; // by rows; where there is none, ~ of the next one
  std::vector<int64_t> free_;    // rows without a stream, the next one to be taken last
};

} // namespace lstm_fastkernels
