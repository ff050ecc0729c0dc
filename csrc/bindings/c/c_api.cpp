// The C interface: handles over the C++ one, exceptions to status codes.
#include "lstm_fastkernels.h"

#include <cstring>
#include <deque>
#include <new>
#include <string>
#include <utility>

#include "lstm_fastkernels/file.h"
#include "lstm_fastkernels/streams.h"

namespace lfk = lstm_fastkernels;

struct lfk_file {
  explicit lfk_file(lfk::File opened) : file(std::move(opened)), lstm_names(file.lstm_names()) {
    for (const std::string &name : file.tensor_names())
      tensors.emplace(name, file.tensor(name));
  }
  lfk::File file;
  std::vector<std::string> lstm_names;
  std::map<std::string, lfk::TensorView> tensors; // what callers' pointers point to
};

struct lfk_lstm {
  lfk::Lstm lstm;
};

struct lfk_state {
  lfk::State state;
};

struct lfk_streams {
  lfk::StreamBatch batch;
};

namespace {

// Of fixed size: a message about memory that ended must not need any.
thread_local char last_error[1024] = "";

lfk_status failed(lfk_status status, const char *message) {
  std::strncpy(last_error, message, sizeof last_error - 1);
  return status;
}

lfk_status status_of(lfk::ErrorCode code) {
  switch (code) {
  case lfk::ErrorCode::invalid_argument:
    return LFK_INVALID_ARGUMENT;
  case lfk::ErrorCode::invalid_file:
    return LFK_INVALID_FILE;
  case lfk::ErrorCode::io:
    return LFK_IO_ERROR;
  case lfk::ErrorCode::device: // there is none here
    break;
  }
  return LFK_INTERNAL_ERROR;
}

template <class Function> lfk_status guarded(const Function &function) {
  try {
    function();
    return LFK_OK;
  } catch (const lfk::Error &error) {
    return failed(status_of(error.code()), error.what());
  } catch (const std::bad_alloc &) {
    return failed(LFK_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception &error) {
    return failed(LFK_INTERNAL_ERROR, error.what());
  }
}

void require(const void *pointer, const char *name) {
  if (!pointer)
    throw lfk::Error(lfk::ErrorCode::invalid_argument, std::string(name) + " must not be NULL");
}

// Whether it is ids.
bool gives_ids(const float *x, const int64_t *ids) {
  if (x && ids)
    throw lfk::Error(lfk::ErrorCode::invalid_argument, "give x or ids, not both");
  return ids;
}

} // namespace

const char *lfk_version(void) { return LSTM_FASTKERNELS_VERSION; }

const char *lfk_last_error(void) { return last_error; }

lfk_status lfk_file_open(const char *path, lfk_file **file) {
  return guarded([&] {
    require(path, "path");
    require(file, "file");
    *file = new lfk_file(lfk::File::open(path));
  });
}

lfk_status lfk_file_map(const char *path, lfk_file **file) {
  return guarded([&] {
    require(path, "path");
    require(file, "file");
    *file = new lfk_file(lfk::File::map(path));
  });
}

lfk_status lfk_file_from_memory(const void *data, size_t bytes, lfk_file **file) {
  return guarded([&] {
    require(data, "data");
    require(file, "file");
    *file = new lfk_file(lfk::File::from_memory(data, bytes));
  });
}

void lfk_file_free(lfk_file *file) { delete file; }

lfk_status lfk_file_tensor(const lfk_file *file, const char *name, lfk_tensor *tensor) {
  return guarded([&] {
    require(file, "file");
    require(name, "name");
    require(tensor, "tensor");
    if (!file->file.has_tensor(name))
      file->file.tensor(name); // throws, and says so
    const lfk::TensorView &of = file->tensors.find(name)->second;
    *tensor = {of.dtype.c_str(), of.shape.data(), of.shape.size(), of.data, of.bytes};
  });
}

size_t lfk_file_num_lstms(const lfk_file *file) { return file ? file->lstm_names.size() : 0; }

const char *lfk_file_lstm_name(const lfk_file *file, size_t index) {
  return index < lfk_file_num_lstms(file) ? file->lstm_names[index].c_str() : nullptr;
}

lfk_status lfk_lstm_load(const lfk_file *file, const char *name, lfk_lstm **lstm) {
  return guarded([&] {
    require(file, "file");
    require(name, "name");
    require(lstm, "lstm");
    *lstm = new lfk_lstm{lfk::Lstm::load(file->file, name)};
  });
}

void lfk_lstm_free(lfk_lstm *lstm) { delete lstm; }

lfk_shape lfk_lstm_shape(const lfk_lstm *lstm) {
  if (!lstm)
    return {};
  const lfk::LstmShape &s = lstm->lstm.shape();
  return {s.input_size, s.hidden_size, s.proj_size, s.num_layers, s.num_directions};
}

int lfk_lstm_takes_ids(const lfk_lstm *lstm) { return lstm && lstm->lstm.takes_ids(); }

int lfk_lstm_shares_file(const lfk_lstm *lstm) { return lstm && lstm->lstm.shares_file(); }

lfk_status lfk_lstm_forward(const lfk_lstm *lstm, const lfk_sequence *sequence, lfk_state *state) {
  return guarded([&] {
    require(lstm, "lstm");
    require(sequence, "sequence");
    require(state, "state");
    lfk::ForwardOptions options;
    options.x_time_stride = sequence->x_time_stride;
    options.x_row_stride = sequence->x_row_stride;
    options.y_time_stride = sequence->y_time_stride;
    options.y_row_stride = sequence->y_row_stride;
    options.lengths = sequence->lengths;
    options.threads = sequence->threads;
    if (gives_ids(sequence->x, sequence->ids))
      lstm->lstm.forward_ids(sequence->ids, sequence->time_steps, sequence->batch_size,
                             state->state, sequence->y, options);
    else
      lstm->lstm.forward(sequence->x, sequence->time_steps, sequence->batch_size, state->state,
                         sequence->y, options);
  });
}

lfk_status lfk_lstm_step(const lfk_lstm *lstm, const float *x, lfk_state *state, float *y) {
  return guarded([&] {
    require(lstm, "lstm");
    require(state, "state");
    lstm->lstm.step(x, state->state, y);
  });
}

lfk_status lfk_lstm_step_ids(const lfk_lstm *lstm, const int64_t *ids, lfk_state *state, float *y) {
  return guarded([&] {
    require(lstm, "lstm");
    require(state, "state");
    lstm->lstm.step_ids(ids, state->state, y);
  });
}

void lfk_release_memory(void) { lfk::release_memory(); }

lfk_status lfk_state_new(const lfk_lstm *lstm, int64_t batch_size, lfk_state **state) {
  return guarded([&] {
    require(lstm, "lstm");
    require(state, "state");
    *state = new lfk_state{lfk::State(lstm->lstm.shape(), batch_size)};
  });
}

lfk_status lfk_state_clone(const lfk_state *state, lfk_state **clone) {
  return guarded([&] {
    require(state, "state");
    require(clone, "clone");
    *clone = new lfk_state(*state);
  });
}

void lfk_state_free(lfk_state *state) { delete state; }

int64_t lfk_state_batch_size(const lfk_state *state) {
  return state ? state->state.batch_size() : 0;
}

float *lfk_state_h(lfk_state *state) { return state ? state->state.h() : nullptr; }

float *lfk_state_c(lfk_state *state) { return state ? state->state.c() : nullptr; }

void lfk_state_reset(lfk_state *state) {
  if (state)
    state->state.reset();
}

lfk_status lfk_state_reset_row(lfk_state *state, int64_t row) {
  return guarded([&] {
    require(state, "state");
    state->state.reset_row(row);
  });
}

lfk_status lfk_state_copy_row(lfk_state *state, int64_t row, const lfk_state *from,
                              int64_t from_row) {
  return guarded([&] {
    require(state, "state");
    require(from, "from");
    state->state.copy_row(row, from->state, from_row);
  });
}

size_t lfk_state_bytes(const lfk_state *state) { return state ? state->state.saved_bytes() : 0; }

lfk_status lfk_state_save(const lfk_state *state, void *saved, size_t bytes) {
  return guarded([&] {
    require(state, "state");
    require(saved, "saved");
    state->state.save(saved, bytes);
  });
}

lfk_status lfk_state_restore(const void *saved, size_t bytes, lfk_state **state) {
  return guarded([&] {
    require(saved, "saved");
    require(state, "state");
    *state = new lfk_state{lfk::State::restore(saved, bytes)};
  });
}

lfk_status lfk_streams_new(const lfk_lstm *lstm, int64_t capacity, lfk_streams **batch) {
  return guarded([&] {
    require(lstm, "lstm");
    require(batch, "batch");
    *batch = new lfk_streams{lfk::StreamBatch(lstm->lstm, capacity)};
  });
}

void lfk_streams_free(lfk_streams *batch) { delete batch; }

int64_t lfk_streams_capacity(const lfk_streams *batch) {
  return batch ? batch->batch.capacity() : 0;
}

int64_t lfk_streams_size(const lfk_streams *batch) { return batch ? batch->batch.size() : 0; }

lfk_status lfk_streams_join(lfk_streams *batch, int64_t *stream) {
  return guarded([&] {
    require(batch, "batch");
    require(stream, "stream");
    *stream = batch->batch.join();
  });
}

lfk_status lfk_streams_fork(lfk_streams *batch, int64_t stream, int64_t *forked) {
  return guarded([&] {
    require(batch, "batch");
    require(forked, "forked");
    *forked = batch->batch.fork(stream);
  });
}

lfk_status lfk_streams_leave(lfk_streams *batch, int64_t stream) {
  return guarded([&] {
    require(batch, "batch");
    batch->batch.leave(stream);
  });
}

lfk_status lfk_streams_reset(lfk_streams *batch, int64_t stream) {
  return guarded([&] {
    require(batch, "batch");
    batch->batch.reset(stream);
  });
}

lfk_status lfk_streams_reorder(lfk_streams *batch, const int64_t *streams, const int64_t *sources,
                               int64_t count) {
  return guarded([&] {
    require(batch, "batch");
    batch->batch.reorder(streams, sources, count);
  });
}

size_t lfk_streams_bytes(const lfk_streams *batch) {
  return batch ? batch->batch.saved_bytes() : 0;
}

lfk_status lfk_streams_save(const lfk_streams *batch, int64_t stream, void *saved, size_t bytes) {
  return guarded([&] {
    require(batch, "batch");
    require(saved, "saved");
    batch->batch.save(stream, saved, bytes);
  });
}

lfk_status lfk_streams_restore(lfk_streams *batch, int64_t stream, const void *saved,
                               size_t bytes) {
  return guarded([&] {
    require(batch, "batch");
    require(saved, "saved");
    batch->batch.restore(stream, saved, bytes);
  });
}

lfk_status lfk_streams_tick(lfk_streams *batch, const lfk_tick *tick) {
  return guarded([&] {
    require(batch, "batch");
    require(tick, "tick");
    lfk::TickOptions options;
    options.x_row_stride = tick->x_row_stride;
    options.y_row_stride = tick->y_row_stride;
    options.threads = tick->threads;
    const void *x = tick->x;
    if (gives_ids(tick->x, tick->ids)) {
      options.id_type = lfk::IdType::int64;
      x = tick->ids;
    }
    batch->batch.tick(tick->streams, tick->count, x, tick->y, options);
  });
}
