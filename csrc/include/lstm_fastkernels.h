/* The C interface of lstm_fastkernels::file: load a model, run it. For C and for whatever calls C.
 *
 * Functions that can fail return a status; on anything but LFK_OK, lfk_last_error() says why and
 * names the file and the tensor, and outputs are as they were. Functions without a status cannot
 * fail: of NULL they give 0, NULL or nothing, and NULL may be freed. Sizes count elements, not
 * bytes, unless they say so. */
#ifndef LSTM_FASTKERNELS_H
#define LSTM_FASTKERNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LFK_API __attribute__((visibility("default")))

typedef enum lfk_status {
  LFK_OK = 0,
  LFK_INVALID_ARGUMENT = 1, /* sizes, values or pointers that the caller gave */
  LFK_INVALID_FILE = 2,     /* the contents of a file */
  LFK_IO_ERROR = 3,         /* the system could not read a file */
  LFK_OUT_OF_MEMORY = 4,
  LFK_INTERNAL_ERROR = 5 /* a defect of this library */
} lfk_status;

typedef struct lfk_file lfk_file;
typedef struct lfk_lstm lfk_lstm;
typedef struct lfk_state lfk_state;
typedef struct lfk_streams lfk_streams;

/* "0.1.0". */
LFK_API const char *lfk_version(void);

/* Why the last call of this thread that failed did so. Valid until the next one that fails. */
LFK_API const char *lfk_last_error(void);

/* ---- files ---- */

LFK_API lfk_status lfk_file_open(const char *path, lfk_file **file);
/* Maps the file: LSTMs that were saved packed run straight from its pages, which all processes that
 * map it share, also after lfk_file_free. Until the last of them is freed it may be removed and
 * replaced by another file, but not changed or cut in place. */
LFK_API lfk_status lfk_file_map(const char *path, lfk_file **file);
/* The memory must outlive the file. */
LFK_API lfk_status lfk_file_from_memory(const void *data, size_t bytes, lfk_file **file);
LFK_API void lfk_file_free(lfk_file *file);

/* A tensor as it lies in the file: row-major, little-endian, at any alignment; valid until the file
 * is freed. */
typedef struct lfk_tensor {
  const char *dtype; /* as safetensors has it: "F32", "F16", "I8", ... */
  const int64_t *shape;
  size_t dimensions;
  const void *data;
  size_t bytes;
} lfk_tensor;

LFK_API lfk_status lfk_file_tensor(const lfk_file *file, const char *name, lfk_tensor *tensor);

/* Names of the LSTMs, "" for one that was saved by itself. */
LFK_API size_t lfk_file_num_lstms(const lfk_file *file);
LFK_API const char *lfk_file_lstm_name(const lfk_file *file, size_t index);

/* ---- LSTMs; any number of threads may run one at once, each with states of its own ---- */

typedef struct lfk_shape {
  int64_t input_size, hidden_size, proj_size; /* proj_size 0: no projection */
  int64_t num_layers, num_directions;
} lfk_shape;

/* The file may be freed afterwards. */
LFK_API lfk_status lfk_lstm_load(const lfk_file *file, const char *name, lfk_lstm **lstm);
LFK_API void lfk_lstm_free(lfk_lstm *lstm);
LFK_API lfk_shape lfk_lstm_shape(const lfk_lstm *lstm);
/* 1 if it reads token ids in 0..input_size - 1, 0 if it reads values. */
LFK_API int lfk_lstm_takes_ids(const lfk_lstm *lstm);
/* 1 if it runs from the pages of a mapped file, 0 if from memory of its own. */
LFK_API int lfk_lstm_shares_file(const lfk_lstm *lstm);

/* One sequence or a batch of them. Strides are in elements, the innermost dimension is contiguous,
 * and 0 stands for a stride without gaps. */
typedef struct lfk_sequence {
  int64_t time_steps, batch_size;
  const float *x; /* [time_steps, batch_size, input_size]; NULL if there are ids */
  float *y;       /* [time_steps, batch_size, num_directions * (proj_size or hidden_size)] */
  int64_t x_time_stride, x_row_stride, y_time_stride, y_row_stride;
  const int64_t *lengths; /* [batch_size], each in 1..time_steps; NULL: all time_steps */
  int threads;            /* at most so many, and as there are processors to use; 0 is 1 */
  const int64_t *ids;     /* [time_steps, batch_size], with x's strides; NULL if there is x */
} lfk_sequence;

/* Goes on from the state and leaves the last one there. */
LFK_API lfk_status lfk_lstm_forward(const lfk_lstm *lstm, const lfk_sequence *sequence,
                                    lfk_state *state);
/* One time step of all rows of the state. */
LFK_API lfk_status lfk_lstm_step(const lfk_lstm *lstm, const float *x, lfk_state *state, float *y);
LFK_API lfk_status lfk_lstm_step_ids(const lfk_lstm *lstm, const int64_t *ids, lfk_state *state,
                                     float *y);

/* Frees what is kept between calls: scratch memory of threads and idle worker threads. */
LFK_API void lfk_release_memory(void);

/* ---- states: h and c of a batch ---- */

/* Zeros. */
LFK_API lfk_status lfk_state_new(const lfk_lstm *lstm, int64_t batch_size, lfk_state **state);
LFK_API lfk_status lfk_state_clone(const lfk_state *state, lfk_state **clone);
LFK_API void lfk_state_free(lfk_state *state);
LFK_API int64_t lfk_state_batch_size(const lfk_state *state);
/* [num_layers * num_directions, batch_size, proj_size or hidden_size], to read and to write. */
LFK_API float *lfk_state_h(lfk_state *state);
/* [num_layers * num_directions, batch_size, hidden_size], to read and to write. */
LFK_API float *lfk_state_c(lfk_state *state);
LFK_API void lfk_state_reset(lfk_state *state);
LFK_API lfk_status lfk_state_reset_row(lfk_state *state, int64_t row);
LFK_API lfk_status lfk_state_copy_row(lfk_state *state, int64_t row, const lfk_state *from,
                                      int64_t from_row);
/* Bytes that lfk_state_save writes. */
LFK_API size_t lfk_state_bytes(const lfk_state *state);
LFK_API lfk_status lfk_state_save(const lfk_state *state, void *saved, size_t bytes);
LFK_API lfk_status lfk_state_restore(const void *saved, size_t bytes, lfk_state **state);

/* ---- many streams: the states of up to `capacity` of them, and a call that moves any of them on
 * by one time step. A stream has the bits that it would have alone. It is named by a number, 0 or
 * above; that of one that has left is given to no other. One thread may use them at a time. ---- */

/* Without streams. The LSTM has one direction; it may be freed afterwards. */
LFK_API lfk_status lfk_streams_new(const lfk_lstm *lstm, int64_t capacity, lfk_streams **batch);
LFK_API void lfk_streams_free(lfk_streams *batch);
LFK_API int64_t lfk_streams_capacity(const lfk_streams *batch);
/* Streams that are there. */
LFK_API int64_t lfk_streams_size(const lfk_streams *batch);
/* A new one of zeros. Fails where `capacity` streams are there, and so does the next. */
LFK_API lfk_status lfk_streams_join(lfk_streams *batch, int64_t *stream);
/* A new one with the state of a stream. */
LFK_API lfk_status lfk_streams_fork(lfk_streams *batch, int64_t stream, int64_t *forked);
LFK_API lfk_status lfk_streams_leave(lfk_streams *batch, int64_t stream);
LFK_API lfk_status lfk_streams_reset(lfk_streams *batch, int64_t stream);
/* Stream streams[i] takes the state that sources[i] had before the call, for all i in 0..count-1 at
 * once. A stream is in `streams` once at most, in `sources` as often as you like. */
LFK_API lfk_status lfk_streams_reorder(lfk_streams *batch, const int64_t *streams,
                                       const int64_t *sources, int64_t count);
/* Bytes that lfk_streams_save writes: those of an lfk_state of one row. */
LFK_API size_t lfk_streams_bytes(const lfk_streams *batch);
LFK_API lfk_status lfk_streams_save(const lfk_streams *batch, int64_t stream, void *saved,
                                    size_t bytes);
/* Into a stream that is there. */
LFK_API lfk_status lfk_streams_restore(lfk_streams *batch, int64_t stream, const void *saved,
                                       size_t bytes);

/* One time step of some streams. Strides are in elements, and 0 stands for one without gaps. */
typedef struct lfk_tick {
  const int64_t *streams; /* [count], each once at most */
  int64_t count;
  const float *x; /* [count, input_size]; NULL if there are ids */
  float *y;       /* [count, proj_size or hidden_size] */
  int64_t x_row_stride, y_row_stride;
  int threads;        /* at most so many, and as there are processors to use; 0 is 1 */
  const int64_t *ids; /* [count], with x's stride; NULL if there is x */
} lfk_tick;

LFK_API lfk_status lfk_streams_tick(lfk_streams *batch, const lfk_tick *tick);

#ifdef __cplusplus
}
#endif

#endif
