#include "c_api.h"

#include <stdlib.h>
#include <string.h>

#include "lstm_fastkernels.h"

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#define EXPECT(condition)                                                                          \
  do {                                                                                             \
    if (!(condition))                                                                              \
      return __FILE__ ":" TEXT(__LINE__) ": " #condition;                                          \
  } while (0)
/* A failure of this kind, with a message of which this is a part. */
#define EXPECT_ERROR(status, call, part)                                                           \
  EXPECT((call) == (status) && strstr(lfk_last_error(), part) != NULL)

static const char kGolden[] = LSTM_FASTKERNELS_TESTS "/data/golden_v2.safetensors";

static const char kPacked[] = LSTM_FASTKERNELS_TESTS "/data/good/packed-int8.safetensors";

static lfk_file *golden(void) {
  lfk_file *file = NULL;
  return lfk_file_open(kGolden, &file) == LFK_OK ? file : NULL;
}

static lfk_lstm *golden_lstm(const char *name) {
  lfk_file *file = golden();
  lfk_lstm *lstm = NULL;
  lfk_status status = lfk_lstm_load(file, name, &lstm);
  lfk_file_free(file); /* the LSTM needs it no more */
  return status == LFK_OK ? lstm : NULL;
}

/* The float32 tensor <name><end> of the golden file, as a copy to be freed. */
static float *golden_floats(const char *name, const char *end, lfk_tensor *tensor) {
  char full[64];
  lfk_file *file = golden();
  float *copy = NULL;
  strcat(strcpy(full, name), end);
  if (lfk_file_tensor(file, full, tensor) == LFK_OK && strcmp(tensor->dtype, "F32") == 0) {
    copy = malloc(tensor->bytes);
    memcpy(copy, tensor->data, tensor->bytes);
  }
  lfk_file_free(file);
  return copy;
}

const char *c_files(void) {
  lfk_file *file = golden();
  lfk_tensor tensor;
  EXPECT(file);
  EXPECT(strcmp(lfk_version(), "0.1.0") == 0);
  EXPECT(lfk_file_num_lstms(file) == 7);
  EXPECT(strcmp(lfk_file_lstm_name(file, 0), "cell") == 0);
  EXPECT(strcmp(lfk_file_lstm_name(file, 6), "projected") == 0);
  EXPECT(lfk_file_lstm_name(file, 7) == NULL && lfk_file_lstm_name(file, (size_t)-1) == NULL);
  EXPECT(lfk_file_tensor(file, "dense_x", &tensor) == LFK_OK);
  EXPECT(strcmp(tensor.dtype, "F32") == 0 && tensor.dimensions == 3 && tensor.shape[2] == 11);
  EXPECT(tensor.bytes == 6 * 3 * 11 * sizeof(float));
  EXPECT(lfk_file_tensor(file, "count", &tensor) == LFK_OK);
  EXPECT(strcmp(tensor.dtype, "I64") == 0 && tensor.dimensions == 0 && tensor.bytes == 8);
  EXPECT_ERROR(LFK_INVALID_FILE, lfk_file_tensor(file, "Count", &tensor), "Count is missing");
  EXPECT(strcmp(tensor.dtype, "I64") == 0); /* as it was */
  lfk_file_free(file);
  return NULL;
}

/* A step of a packed file, from its pages or not: y [1, 5]. */
static int step_of(lfk_status (*open)(const char *, lfk_file **), int *shares, float *y) {
  const float x[3] = {1, -2, 3};
  lfk_file *file = NULL;
  lfk_lstm *lstm = NULL;
  lfk_state *state = NULL;
  const int loads = open(kPacked, &file) == LFK_OK && lfk_lstm_load(file, "", &lstm) == LFK_OK;
  lfk_file_free(file);
  *shares = lfk_lstm_shares_file(lstm);
  const int runs = loads && lfk_state_new(lstm, 1, &state) == LFK_OK &&
                   lfk_lstm_step(lstm, x, state, y) == LFK_OK;
  lfk_state_free(state);
  lfk_lstm_free(lstm);
  return runs;
}

const char *c_mapped_files(void) {
  float mapped[5] = {0}, opened[5] = {0};
  int shares = 0;
  EXPECT(step_of(lfk_file_map, &shares, mapped) && shares == 1);
  EXPECT(step_of(lfk_file_open, &shares, opened) && shares == 0);
  EXPECT(memcmp(mapped, opened, sizeof mapped) == 0 && mapped[0] != 0);
  return NULL;
}

const char *c_broken_files(void) {
  lfk_file *const before = (lfk_file *)kGolden;
  lfk_file *file = before;
  const char list[] = "\2\0\0\0\0\0\0\0[]";
  const char empty[] = "\2\0\0\0\0\0\0\0{}";
  EXPECT_ERROR(LFK_IO_ERROR, lfk_file_open("/nowhere/model", &file), "/nowhere/model: No such");
  EXPECT_ERROR(LFK_IO_ERROR, lfk_file_open("/", &file), "/: not a regular file");
  EXPECT_ERROR(LFK_IO_ERROR, lfk_file_map("/nowhere/model", &file), "/nowhere/model: No such");
  EXPECT_ERROR(LFK_INVALID_FILE, lfk_file_from_memory(list, 10, &file), "must start with '{'");
  EXPECT_ERROR(LFK_INVALID_FILE, lfk_file_from_memory(list, 0, &file), "too short");
  EXPECT(file == before);
  EXPECT(lfk_file_from_memory(empty, 10, &file) == LFK_OK && file != before);
  EXPECT(lfk_file_num_lstms(file) == 0);
  lfk_file_free(file);
  return NULL;
}

const char *c_outputs(const char *name) {
  lfk_lstm *lstm = golden_lstm(name);
  lfk_tensor x_is, y_is, h_is, c_is;
  float *x = golden_floats(name, "_x", &x_is), *y = golden_floats(name, "_y", &y_is);
  float *h0 = golden_floats(name, "_h0", &h_is), *c0 = golden_floats(name, "_c0", &c_is);
  float *h = golden_floats(name, "_h", &h_is), *c = golden_floats(name, "_c", &c_is);
  float *found = calloc(1, y_is.bytes);
  lfk_state *state = NULL, *clone = NULL;
  lfk_sequence sequence = {6, 3, x, found, 0, 0, 0, 0, NULL, 0, NULL};
  int64_t t, columns, output;
  lfk_shape shape;
  EXPECT(lstm && x && y && h0 && c0 && h && c && found);
  shape = lfk_lstm_shape(lstm);
  output = shape.proj_size ? shape.proj_size : shape.hidden_size;
  columns = shape.num_directions * output;
  EXPECT(y_is.bytes == (size_t)(6 * 3 * columns) * sizeof(float));
  EXPECT(x_is.bytes == (size_t)(6 * 3 * shape.input_size) * sizeof(float));

  EXPECT(lfk_state_new(lstm, 3, &state) == LFK_OK && lfk_state_batch_size(state) == 3);
  memcpy(lfk_state_h(state), h0, h_is.bytes);
  memcpy(lfk_state_c(state), c0, c_is.bytes);
  EXPECT(lfk_state_clone(state, &clone) == LFK_OK);
  lfk_release_memory();
  EXPECT(lfk_lstm_forward(lstm, &sequence, state) == LFK_OK);
  lfk_release_memory();
  EXPECT(memcmp(found, y, y_is.bytes) == 0);
  EXPECT(memcmp(lfk_state_h(state), h, h_is.bytes) == 0);
  EXPECT(memcmp(lfk_state_c(state), c, c_is.bytes) == 0);

  memset(found, 0, y_is.bytes);
  for (t = 0; t < 6 && shape.num_directions == 1; ++t)
    EXPECT(lfk_lstm_step(lstm, x + t * 3 * shape.input_size, clone, found + t * 3 * columns) ==
           LFK_OK);
  if (shape.num_directions == 1) {
    EXPECT(memcmp(found, y, y_is.bytes) == 0);
    EXPECT(memcmp(lfk_state_c(clone), c, c_is.bytes) == 0);
  }
  lfk_state_free(state);
  lfk_state_free(clone);
  lfk_lstm_free(lstm);
  free(x), free(y), free(h0), free(c0), free(h), free(c), free(found);
  return NULL;
}

/* Rows of x and y lie apart, batch first; the second row ends after 2 of 4 steps. */
const char *c_strides_and_lengths(void) {
  lfk_lstm *lstm = golden_lstm("encoder.wide"); /* 9 to 19 */
  enum { I = 9, H = 19, T = 4, XROW = T * I + 1, YROW = T * H + 3 };
  float x[2 * XROW], y[2 * YROW], alone[T * H];
  const int64_t lengths[] = {T, 2};
  lfk_sequence both = {T, 2, x, y, I, XROW, H, YROW, lengths, 2, NULL};
  lfk_state *state = NULL, *one = NULL;
  int64_t i, row;
  EXPECT(lstm && lfk_lstm_shape(lstm).input_size == I && lfk_lstm_shape(lstm).hidden_size == H);
  for (i = 0; i < 2 * XROW; ++i)
    x[i] = (float)(i % 11) - 5;
  EXPECT(lfk_state_new(lstm, 2, &state) == LFK_OK);
  EXPECT(lfk_lstm_forward(lstm, &both, state) == LFK_OK);
  for (row = 0; row < 2; ++row) {
    lfk_sequence single = {lengths[row], 1, x + row * XROW, alone, 0, 0, 0, 0, NULL, 1, NULL};
    const size_t bytes = (size_t)(lengths[row] * H) * sizeof(float);
    EXPECT(lfk_state_new(lstm, 1, &one) == LFK_OK);
    EXPECT(lfk_lstm_forward(lstm, &single, one) == LFK_OK);
    EXPECT(memcmp(y + row * YROW, alone, bytes) == 0);
    EXPECT(memcmp(lfk_state_h(state) + row * H, lfk_state_h(one), H * sizeof(float)) == 0);
    lfk_state_free(one);
  }
  for (i = 2 * H; i < T * H; ++i)
    EXPECT(y[YROW + i] == 0);
  lfk_state_free(state);
  lfk_lstm_free(lstm);
  return NULL;
}

const char *c_states(void) {
  lfk_lstm *lstm = golden_lstm("projected"); /* h of 15, c of 33 */
  lfk_state *state = NULL, *clone = NULL, *again = NULL;
  unsigned char saved[2000];
  int64_t i;
  EXPECT(lstm && lfk_state_new(lstm, 3, &state) == LFK_OK);
  for (i = 0; i < 3 * 33; ++i)
    EXPECT(lfk_state_c(state)[i] == 0);
  for (i = 0; i < 3 * 15; ++i)
    lfk_state_h(state)[i] = (float)i;
  EXPECT(lfk_state_clone(state, &clone) == LFK_OK);
  EXPECT(lfk_state_reset_row(state, 1) == LFK_OK);
  EXPECT(lfk_state_h(state)[14] == 14 && lfk_state_h(state)[15] == 0);
  EXPECT(lfk_state_h(state)[29] == 0 && lfk_state_h(state)[30] == 30);
  EXPECT(lfk_state_h(clone)[15] == 15);
  EXPECT(lfk_state_copy_row(state, 1, clone, 2) == LFK_OK && lfk_state_h(state)[15] == 30);

  EXPECT(lfk_state_bytes(state) == 32 + 3 * 48 * sizeof(float));
  EXPECT(lfk_state_save(state, saved, lfk_state_bytes(state)) == LFK_OK);
  lfk_state_reset(state);
  EXPECT(lfk_state_h(state)[30] == 0);
  EXPECT(lfk_state_restore(saved, lfk_state_bytes(state), &again) == LFK_OK);
  EXPECT(lfk_state_batch_size(again) == 3 && lfk_state_h(again)[15] == 30);
  lfk_state_free(state);
  lfk_state_free(clone);
  lfk_state_free(again);
  lfk_lstm_free(lstm);
  return NULL;
}

/* Three places; x and y of a tick have gaps. Each stream is as its State of one row. */
const char *c_streams(void) {
  lfk_lstm *lstm = golden_lstm("encoder.wide"); /* 9 to 19 */
  enum { I = 9, H = 19, XROW = I + 2, YROW = H + 1 };
  float x[3 * XROW], y[3 * YROW], alone[3][H];
  lfk_streams *streams = NULL;
  lfk_state *states[3] = {NULL, NULL, NULL}, *restored = NULL;
  int64_t ids[3] = {-1, -1, -1}, swapped[3], stream = -1, i, t;
  lfk_tick tick = {ids, 3, x, y, XROW, YROW, 2, NULL};
  unsigned char saved[32 + 2 * H * sizeof(float)];
  const lfk_tick nothing = {NULL, 0, NULL, NULL, 0, 0, 0, NULL};
  EXPECT(lstm && lfk_streams_new(lstm, 3, &streams) == LFK_OK);
  EXPECT(lfk_streams_capacity(streams) == 3 && lfk_streams_size(streams) == 0);
  for (i = 0; i < 3; ++i) {
    EXPECT(lfk_streams_join(streams, &ids[i]) == LFK_OK && ids[i] == i);
    EXPECT(lfk_state_new(lstm, 1, &states[i]) == LFK_OK);
  }
  for (i = 0; i < 3 * XROW; ++i)
    x[i] = (float)(i % 11) - 5;
  for (t = 0; t < 2; ++t) {
    EXPECT(lfk_streams_tick(streams, &tick) == LFK_OK);
    for (i = 0; i < 3; ++i) {
      EXPECT(lfk_lstm_step(lstm, x + i * XROW, states[i], alone[i]) == LFK_OK);
      EXPECT(memcmp(y + i * YROW, alone[i], sizeof alone[i]) == 0);
    }
  }
  lfk_lstm_free(lstm); /* the streams need it no more */

  swapped[0] = 1, swapped[1] = 0, swapped[2] = 1;
  EXPECT(lfk_streams_reorder(streams, ids, swapped, 3) == LFK_OK);
  EXPECT(lfk_streams_bytes(streams) == sizeof saved);
  for (i = 0; i < 3; ++i) {
    EXPECT(lfk_streams_save(streams, ids[i], saved, sizeof saved) == LFK_OK);
    EXPECT(lfk_state_restore(saved, sizeof saved, &restored) == LFK_OK);
    EXPECT(memcmp(lfk_state_c(restored), lfk_state_c(states[swapped[i]]), H * sizeof(float)) == 0);
    lfk_state_free(restored);
  }
  EXPECT(lfk_streams_reset(streams, 2) == LFK_OK);
  EXPECT(lfk_streams_save(streams, 2, saved, sizeof saved) == LFK_OK);
  for (i = 32; i < (int64_t)sizeof saved; ++i)
    EXPECT(saved[i] == 0);

  EXPECT_ERROR(LFK_INVALID_ARGUMENT, lfk_streams_join(streams, &stream), "all 3 places are taken");
  EXPECT(stream == -1);
  EXPECT(lfk_streams_leave(streams, 1) == LFK_OK && lfk_streams_size(streams) == 2);
  EXPECT_ERROR(LFK_INVALID_ARGUMENT, lfk_streams_leave(streams, 1), "there is no stream 1");
  EXPECT(lfk_state_save(states[2], saved, sizeof saved) == LFK_OK);
  EXPECT(lfk_streams_restore(streams, 0, saved, sizeof saved) == LFK_OK);
  EXPECT(lfk_streams_fork(streams, 0, &stream) == LFK_OK && stream == 4);
  EXPECT_ERROR(LFK_INVALID_ARGUMENT, lfk_streams_tick(streams, &tick), "there is no stream 1");
  ids[0] = 4, ids[1] = 4;
  EXPECT_ERROR(LFK_INVALID_ARGUMENT, lfk_streams_tick(streams, &tick), "stream 4 is given twice");
  tick.count = 1;
  EXPECT(lfk_streams_tick(streams, &tick) == LFK_OK);
  EXPECT(lfk_streams_tick(streams, &nothing) == LFK_OK);
  for (i = 0; i < 3; ++i)
    lfk_state_free(states[i]);
  lfk_streams_free(streams);
  return NULL;
}

const char *c_errors(void) {
  lfk_file *file = golden();
  lfk_lstm *const no_lstm = (lfk_lstm *)kGolden, *lstm = no_lstm;
  lfk_state *const no_state = (lfk_state *)kGolden, *other = no_state, *state = NULL;
  const int64_t lengths[] = {1, 1};
  lfk_file *opened = NULL;
  float x[64] = {0}, y[64] = {0};
  lfk_sequence sequence = {1, 3, x, y, 0, 0, 0, 0, NULL, 0, NULL};
  unsigned char saved[64] = {0};
  char long_name[3000];
  EXPECT(file);
  EXPECT_ERROR(LFK_INVALID_FILE, lfk_lstm_load(file, "", &lstm), "no LSTM '', it holds 'cell'");
  EXPECT(lstm == no_lstm && strncmp(lfk_last_error(), kGolden, strlen(kGolden)) == 0);
  memset(long_name, 'n', sizeof long_name - 1);
  long_name[sizeof long_name - 1] = '\0';
  EXPECT_ERROR(LFK_INVALID_FILE, lfk_lstm_load(file, long_name, &lstm), "no LSTM 'nnn");
  EXPECT(strlen(lfk_last_error()) == 1023);                 /* cut to its room */
  EXPECT(lfk_lstm_load(file, "cell", &lstm) == LFK_OK);     /* 7 to 10 */
  EXPECT(strstr(lfk_last_error(), "no LSTM 'nnn") != NULL); /* of the last one that failed */

  EXPECT_ERROR(LFK_INVALID_ARGUMENT, lfk_state_new(lstm, -1, &other), "batch_size must be in");
  EXPECT_ERROR(LFK_INVALID_FILE, lfk_state_restore(saved, 31, &other), "at least 32 bytes");
  EXPECT_ERROR(LFK_INVALID_FILE, lfk_state_restore(saved, 64, &other), "bad magic number");
  EXPECT(other == no_state);
  EXPECT(lfk_state_new(lstm, 2, &state) == LFK_OK);
  EXPECT_ERROR(LFK_INVALID_ARGUMENT, lfk_state_save(state, saved, 64), "not 64");
  EXPECT_ERROR(LFK_INVALID_ARGUMENT, lfk_state_reset_row(state, 2), "row must be in 0..1, got 2");
  EXPECT_ERROR(LFK_INVALID_ARGUMENT, lfk_state_copy_row(state, 0, state, -1), "got -1");
  EXPECT_ERROR(LFK_INVALID_ARGUMENT, lfk_lstm_forward(lstm, &sequence, state), "it holds 2 rows");
  sequence.batch_size = 2;
  sequence.time_steps = 0;
  EXPECT_ERROR(LFK_INVALID_ARGUMENT, lfk_lstm_forward(lstm, &sequence, state), "time_steps must");
  EXPECT(lfk_state_batch_size(state) == 2);
  sequence.time_steps = INT64_MAX;
  EXPECT_ERROR(LFK_INVALID_ARGUMENT, lfk_lstm_forward(lstm, &sequence, state), "at most");
  sequence.lengths = lengths;
  EXPECT_ERROR(LFK_INVALID_ARGUMENT, lfk_lstm_forward(lstm, &sequence, state), "at most");
  sequence.lengths = NULL;
  sequence.time_steps = 1;
  sequence.threads = -1;
  EXPECT_ERROR(LFK_INVALID_ARGUMENT, lfk_lstm_forward(lstm, &sequence, state), "threads must not");
  sequence.threads = 0;
  sequence.y_row_stride = 9; /* of 10 columns */
  EXPECT_ERROR(LFK_INVALID_ARGUMENT, lfk_lstm_forward(lstm, &sequence, state), "rows overlap");
  sequence.y_row_stride = INT64_MIN;
  EXPECT_ERROR(LFK_INVALID_ARGUMENT, lfk_lstm_forward(lstm, &sequence, state), "out of range");
  sequence.y_row_stride = 0;
  sequence.x_row_stride = INT64_MAX;
  EXPECT_ERROR(LFK_INVALID_ARGUMENT, lfk_lstm_forward(lstm, &sequence, state), "out of range");
  sequence.x_row_stride = 0;
  EXPECT_ERROR(LFK_INVALID_ARGUMENT, lfk_file_from_memory(saved, (size_t)-1, &opened), "no memory");
  EXPECT(lfk_lstm_forward(lstm, &sequence, state) == LFK_OK);
  lfk_state_free(state);
  lfk_lstm_free(lstm);
  lfk_file_free(file);
  return NULL;
}

const char *c_null_pointers(void) {
  lfk_file *file = golden();
  lfk_lstm *lstm = golden_lstm("cell");
  lfk_state *state = NULL;
  lfk_tensor tensor;
  float values[32] = {0};
  lfk_sequence no_x = {1, 1, NULL, values, 0, 0, 0, 0, NULL, 0, NULL};
  lfk_streams *streams = NULL;
  int64_t stream = 0;
  const lfk_tick no_values = {&stream, 1, NULL, NULL, 0, 0, 0, NULL};
  EXPECT(file && lstm && lfk_state_new(lstm, 1, &state) == LFK_OK);
#define REFUSED(call, name) EXPECT_ERROR(LFK_INVALID_ARGUMENT, call, name " must not be NULL")
  REFUSED(lfk_file_open(NULL, &file), "path");
  REFUSED(lfk_file_open(kGolden, NULL), "file");
  REFUSED(lfk_file_map(NULL, &file), "path");
  REFUSED(lfk_file_map(kGolden, NULL), "file");
  REFUSED(lfk_file_from_memory(NULL, 9, &file), "data");
  REFUSED(lfk_file_from_memory(values, 9, NULL), "file");
  REFUSED(lfk_file_tensor(NULL, "count", &tensor), "file");
  REFUSED(lfk_file_tensor(file, NULL, &tensor), "name");
  REFUSED(lfk_file_tensor(file, "count", NULL), "tensor");
  REFUSED(lfk_lstm_load(NULL, "cell", &lstm), "file");
  REFUSED(lfk_lstm_load(file, NULL, &lstm), "name");
  REFUSED(lfk_lstm_load(file, "cell", NULL), "lstm");
  REFUSED(lfk_lstm_forward(NULL, &no_x, state), "lstm");
  REFUSED(lfk_lstm_forward(lstm, NULL, state), "sequence");
  REFUSED(lfk_lstm_forward(lstm, &no_x, NULL), "state");
  REFUSED(lfk_lstm_step(NULL, values, state, values), "lstm");
  REFUSED(lfk_lstm_step(lstm, values, NULL, values), "state");
  REFUSED(lfk_state_new(NULL, 1, &state), "lstm");
  REFUSED(lfk_state_new(lstm, 1, NULL), "state");
  REFUSED(lfk_state_clone(NULL, &state), "state");
  REFUSED(lfk_state_clone(state, NULL), "clone");
  REFUSED(lfk_state_reset_row(NULL, 0), "state");
  REFUSED(lfk_state_copy_row(NULL, 0, state, 0), "state");
  REFUSED(lfk_state_copy_row(state, 0, NULL, 0), "from");
  REFUSED(lfk_state_save(NULL, values, 9), "state");
  REFUSED(lfk_state_save(state, NULL, 9), "saved");
  REFUSED(lfk_state_restore(NULL, 9, &state), "saved");
  REFUSED(lfk_state_restore(values, 9, NULL), "state");
  REFUSED(lfk_streams_new(NULL, 1, &streams), "lstm");
  REFUSED(lfk_streams_new(lstm, 1, NULL), "batch");
  EXPECT(lfk_streams_new(lstm, 1, &streams) == LFK_OK);
  EXPECT(lfk_streams_join(streams, &stream) == LFK_OK);
  REFUSED(lfk_streams_join(NULL, &stream), "batch");
  REFUSED(lfk_streams_join(streams, NULL), "stream");
  REFUSED(lfk_streams_fork(NULL, stream, &stream), "batch");
  REFUSED(lfk_streams_fork(streams, stream, NULL), "forked");
  REFUSED(lfk_streams_leave(NULL, stream), "batch");
  REFUSED(lfk_streams_reset(NULL, stream), "batch");
  REFUSED(lfk_streams_reorder(NULL, &stream, &stream, 1), "batch");
  EXPECT_ERROR(LFK_INVALID_ARGUMENT, lfk_streams_reorder(streams, NULL, &stream, 1),
               "streams must not be null");
  EXPECT_ERROR(LFK_INVALID_ARGUMENT, lfk_streams_reorder(streams, &stream, NULL, 1),
               "sources must not be null");
  REFUSED(lfk_streams_save(NULL, stream, values, 9), "batch");
  REFUSED(lfk_streams_save(streams, stream, NULL, 9), "saved");
  REFUSED(lfk_streams_restore(NULL, stream, values, 9), "batch");
  REFUSED(lfk_streams_restore(streams, stream, NULL, 9), "saved");
  REFUSED(lfk_streams_tick(NULL, &no_values), "batch");
  REFUSED(lfk_streams_tick(streams, NULL), "tick");
  EXPECT_ERROR(LFK_INVALID_ARGUMENT, lfk_streams_tick(streams, &no_values), "must not be null");
  EXPECT_ERROR(LFK_INVALID_ARGUMENT, lfk_lstm_forward(lstm, &no_x, state), "must not be null");
  EXPECT_ERROR(LFK_INVALID_ARGUMENT, lfk_lstm_step(lstm, NULL, state, values), "must not be null");
  EXPECT_ERROR(LFK_INVALID_ARGUMENT, lfk_lstm_step(lstm, values, state, NULL), "must not be null");
  lfk_streams_free(streams);
  lfk_state_free(state);
  lfk_lstm_free(lstm);
  lfk_file_free(file);
  lfk_file_free(NULL);
  lfk_lstm_free(NULL);
  lfk_state_free(NULL);
  lfk_streams_free(NULL);
  lfk_state_reset(NULL);
  EXPECT(lfk_file_num_lstms(NULL) == 0 && lfk_file_lstm_name(NULL, 0) == NULL);
  EXPECT(lfk_lstm_takes_ids(NULL) == 0 && lfk_lstm_shares_file(NULL) == 0);
  EXPECT(lfk_lstm_shape(NULL).hidden_size == 0 && lfk_state_batch_size(NULL) == 0);
  EXPECT(lfk_state_h(NULL) == NULL && lfk_state_c(NULL) == NULL && lfk_state_bytes(NULL) == 0);
  EXPECT(lfk_streams_capacity(NULL) == 0 && lfk_streams_size(NULL) == 0);
  EXPECT(lfk_streams_bytes(NULL) == 0);
  return NULL;
}
