#include "lstm_fastkernels/streams.h"

#include <algorithm>
#include <string>

#include "common/fail.h"
#include "common/workspace.h"
#include "runtime/state_rows.h"

namespace lstm_fastkernels {
namespace {

State zeros(const Lstm &lstm, int64_t capacity) {
  const LstmShape &shape = lstm.shape();
  if (shape.num_directions != 1)
    fail("a StreamBatch needs an LSTM of one direction: the other one begins at a stream's end");
  if (capacity < 1 || capacity > kMaxStateBatch)
    fail("capacity must be in 1.." + std::to_string(kMaxStateBatch) + ", got " +
         std::to_string(capacity));
  return State(shape, capacity);
}

void check_count(int64_t count, int64_t capacity) {
  if (count < 0 || count > capacity)
    fail("count must be in 0.." + std::to_string(capacity) + ", each stream once at most, got " +
         std::to_string(count));
}

// In each layer, row to[i] becomes row from[i], for all i at once.
void copy_rows(float *states, int64_t layers, int64_t capacity, int64_t columns, const int64_t *to,
               const int64_t *from, int64_t count) {
  Workspace memory;
  float *const copied = memory.allocate<float>(count * columns);
  for (float *layer = states; layer < states + layers * capacity * columns;
       layer += capacity * columns) {
    for (int64_t i = 0; i < count; ++i)
      std::copy_n(layer + from[i] * columns, columns, copied + i * columns);
    for (int64_t i = 0; i < count; ++i)
      std::copy_n(copied + i * columns, columns, layer + to[i] * columns);
  }
}

} // namespace

StreamBatch::StreamBatch(const Lstm &lstm, int64_t capacity)
    : lstm_(lstm), saved_bytes_(State(lstm.shape()).saved_bytes()), states_(zeros(lstm, capacity)) {
  for (int64_t row = 0; row < capacity; ++row) {
    streams_.push_back(~row);
    free_.push_back(capacity - 1 - row);
  }
}

bool StreamBatch::has(int64_t stream) const {
  return stream >= 0 && streams_[static_cast<size_t>(stream % capacity())] == stream;
}

std::vector<int64_t> StreamBatch::streams() const {
  std::vector<int64_t> found;
  for (const int64_t stream : streams_)
    if (stream >= 0)
      found.push_back(stream);
  std::sort(found.begin(), found.end());
  return found;
}

int64_t StreamBatch::row_of(int64_t stream) const {
  if (!has(stream))
    fail("there is no stream " + std::to_string(stream) +
         (stream < 0 ? "" : ": it has left, or never joined"));
  return stream % capacity();
}

void StreamBatch::take_rows(const char *name, const int64_t *streams, int64_t count,
                            int64_t *rows) const {
  if (count && !streams)
    fail(std::string(name) + " must not be null");
  for (int64_t i = 0; i < count; ++i)
    rows[i] = row_of(streams[i]);
}

void StreamBatch::take_own_rows(const int64_t *streams, int64_t count, int64_t *rows) const {
  take_rows("streams", streams, count, rows);
  const int64_t repeated = first_repeated(rows, count, capacity());
  if (repeated >= 0)
    fail("stream " + std::to_string(streams_[static_cast<size_t>(rows[repeated])]) +
         " is given twice");
}

int64_t StreamBatch::join() {
  if (free_.empty())
    fail("all " + std::to_string(capacity()) + " places are taken: a stream must leave first");
  const int64_t row = free_.back();
  states_.reset_row(row);
  free_.pop_back();
  int64_t &stream = streams_[static_cast<size_t>(row)];
  return stream = ~stream;
}

int64_t StreamBatch::fork(int64_t stream) {
  const int64_t source = row_of(stream), forked = join();
  states_.copy_row(row_of(forked), states_, source);
  return forked;
}

void StreamBatch::leave(int64_t stream) {
  const int64_t row = row_of(stream);
  streams_[static_cast<size_t>(row)] = ~(stream + capacity());
  free_.push_back(row);
}

void StreamBatch::reset(int64_t stream) { states_.reset_row(row_of(stream)); }

void StreamBatch::reorder(const int64_t *streams, const int64_t *sources, int64_t count) {
  check_count(count, capacity());
  Workspace memory;
  int64_t *const to = memory.allocate<int64_t>(count);
  int64_t *const from = memory.allocate<int64_t>(count);
  take_own_rows(streams, count, to);
  take_rows("sources", sources, count, from);
  const int64_t layers = states_.layers();
  copy_rows(states_.h(), layers, capacity(), states_.output_size(), to, from, count);
  copy_rows(states_.c(), layers, capacity(), states_.hidden_size(), to, from, count);
}

void StreamBatch::save(int64_t stream, void *saved, size_t bytes) const {
  State one(lstm_.shape());
  one.copy_row(0, states_, row_of(stream));
  one.save(saved, bytes);
}

void StreamBatch::restore(int64_t stream, const void *saved, size_t bytes) {
  const int64_t row = row_of(stream);
  const State one = State::restore(saved, bytes);
  if (one.batch_size() != 1)
    fail("restore: the saved state holds " + std::to_string(one.batch_size()) +
         " rows, a stream has one");
  if (one.layers() != states_.layers() || one.output_size() != states_.output_size() ||
      one.hidden_size() != states_.hidden_size())
    fail("restore: the saved state is of another LSTM");
  states_.copy_row(row, one, 0);
}

void StreamBatch::tick(const int64_t *streams, int64_t count, const void *x, void *y,
                       const TickOptions &options) {
  check_count(count, capacity());
  if (count == 0)
    return;
  Workspace memory;
  int64_t *const rows = memory.allocate<int64_t>(count);
  take_own_rows(streams, count, rows);
  const LstmShape &shape = lstm_.shape();
  LstmArguments a;
  a.time_steps = 1;
  a.batch_size = count;
  a.x = x;
  a.y = y;
  a.data_type = options.data_type;
  a.id_type = options.id_type;
  const int64_t columns = lstm_.takes_ids() ? 1 : shape.input_size;
  a.x_row_stride = options.x_row_stride ? options.x_row_stride : columns;
  a.y_row_stride = options.y_row_stride ? options.y_row_stride : shape.output_size();
  a.h0 = a.h_n = states_.h();
  a.c0 = a.c_n = states_.c();
  a.state_rows = rows;
  a.state_batch = capacity();
  a.threads = options.threads;
  lstm_.forward(a);
}

} // namespace lstm_fastkernels
