// The way of a sequence through a stack: which rows work at which step, chunks, layers, threads.
// All arithmetic is in the kernels.
#include <algorithm>
#include <new>
#include <type_traits>

#include "common/fail.h"
#include "common/plane.h"
#include "runtime/cell_state.h"
#include "runtime/split.h"
#include "runtime/stack.h"
#include "runtime/thread_pool.h"

namespace lstm_fastkernels {
namespace {

// Steps are taken in chunks whose input products fill about this many bytes: they stay in L2, and
// memory does not grow with the sequence.
constexpr int64_t kChunkBytes = int64_t{192} << 10;
constexpr int64_t kMaxChunkRows = 192;
constexpr int64_t kMinChunkRows = 12;

// A run of time steps in the direction of travel: step s is time s, or T - 1 - s in reverse.
struct Chunk {
  int64_t begin, end;
};

// One layer and direction for a range of rows, a chunk of steps at a time.
class Direction {
public:
  // For chunks of at most `most_rows` rows.
  Direction(const Call &call, Workspace &memory, int64_t layer, int64_t direction, RowRange rows,
            int64_t most_rows)
      : call_(call), layer_(layer), reverse_(direction == 1), rows_(rows),
        cell_(layer * call.stack.shape.num_directions + direction),
        ih_(call.stack.layers[static_cast<size_t>(cell_)].ih),
        bias_(call.stack.layers[static_cast<size_t>(cell_)].bias),
        input_(memory, ih_, most_rows, call.stack.shape.layer_input_size(layer)),
        state_(call, memory, cell_, rows) {}

  // The next chunk of at most `most_rows` rows, at least one step.
  Chunk next_chunk(int64_t begin, int64_t most_rows) const {
    int64_t end = begin, rows = 0;
    do
      rows += active(time(end++));
    while (end < call_.arguments.time_steps && rows + active(time(end)) <= most_rows);
    return {begin, end};
  }

  // `gates` is scratch for the chunk's rows. Input rows are read before any output row is written.
  void run(Chunk chunk, const Plane &in, const Plane &out, float *gates) {
    int64_t chunk_rows = 0;
    for (int64_t s = chunk.begin; s < chunk.end; ++s)
      for (int64_t row = 0, n = active(time(s)); row < n; ++row, ++chunk_rows)
        quantize_input(in.at(call_.schedule, time(s), rows_.begin + row, chunk_rows), in.type,
                       chunk_rows);
    call_.kernels.products(ih_, all_tiles(ih_), bias_, chunk_rows,
                           input_.take(call_.kernels, chunk_rows), gates);

    int64_t first = 0;
    for (int64_t s = chunk.begin; s < chunk.end; ++s) {
      const int64_t n = active(time(s));
      state_.step(n, gates + first * call_.gates_per_row());
      for (int64_t row = 0; row < n; ++row)
        narrow(state_.output(row), call_.stack.shape.output_size(), out.type,
               out.at(call_.schedule, time(s), rows_.begin + row, first + row));
      first += n;
    }
  }

  void store_state() const { state_.store(); }

private:
  int64_t active(int64_t t) const {
    return std::clamp<int64_t>(call_.schedule.active(t) - rows_.begin, 0, rows_.size());
  }
  int64_t time(int64_t s) const { return reverse_ ? call_.arguments.time_steps - 1 - s : s; }

  void quantize_input(const uint8_t *row, DataType type, int64_t to) const {
    const int64_t columns = call_.stack.shape.layer_input_size(layer_);
    const float *values = reinterpret_cast<const float *>(row);
    Workspace memory;
    if (type != DataType::float32) {
      float *widened = memory.allocate<float>(columns);
      widen(row, type, columns, widened);
      values = widened;
    }
    input_.quantize(call_.kernels, to, values, RowKind::any);
  }

  const Call &call_;
  const int64_t layer_;
  const bool reverse_;
  const RowRange rows_;
  const int64_t cell_;
  const PackedMatrix &ih_;
  const uint8_t *bias_;
  const Operand input_;
  CellState state_;
};

int64_t rows_a_chunk(const Call &call, int64_t active_rows) {
  const int64_t fitting = kChunkBytes / (call.gates_per_row() * int64_t{sizeof(float)});
  const int64_t wanted = std::clamp(fitting, kMinChunkRows, kMaxChunkRows);
  return std::max(active_rows, std::min(wanted, active_rows * call.arguments.time_steps));
}

// One direction only: every chunk goes through all layers, so that memory does not grow with T.
void run_forward(const Call &call, RowRange rows) {
  Workspace memory;
  const LstmShape &shape = call.stack.shape;
  const LstmArguments &a = call.arguments;
  const int64_t most_rows = rows_a_chunk(call, rows.size());
  float *gates = memory.allocate<float>(most_rows * call.gates_per_row());
  float *between = memory.allocate<float>(most_rows * shape.output_size());
  const Plane layers_plane{Plane::Addressing::chunk, reinterpret_cast<uint8_t *>(between),
                           DataType::float32, shape.output_size() * int64_t{sizeof(float)}};
  const Plane x = x_plane(a), y = y_plane(a);
  static_assert(std::is_trivially_destructible_v<Direction>);
  Direction *const layers = memory.allocate<Direction>(shape.num_layers);
  for (int64_t layer = 0; layer < shape.num_layers; ++layer)
    new (layers + layer) Direction(call, memory, layer, 0, rows, most_rows);
  for (Chunk chunk{0, 0}; chunk.end < a.time_steps;) {
    chunk = layers[0].next_chunk(chunk.end, most_rows);
    for (int64_t layer = 0; layer < shape.num_layers; ++layer) {
      const bool last = layer + 1 == shape.num_layers;
      layers[layer].run(chunk, layer == 0 ? x : layers_plane, last ? y : layers_plane, gates);
    }
  }
  for (int64_t layer = 0; layer < shape.num_layers; ++layer)
    layers[layer].store_state();
}

void run_direction(const Call &call, int64_t layer, int64_t direction, RowRange rows,
                   const Plane &in, const Plane &out) {
  Workspace memory;
  const LstmShape &shape = call.stack.shape;
  const int64_t most_rows = rows_a_chunk(call, rows.size());
  float *gates = memory.allocate<float>(most_rows * call.gates_per_row());
  Direction state(call, memory, layer, direction, rows, most_rows);
  const Plane columns = out.columns_from(direction * shape.output_size());
  for (Chunk chunk{0, 0}; chunk.end < call.arguments.time_steps;) {
    chunk = state.next_chunk(chunk.end, most_rows);
    state.run(chunk, in, columns, gates);
  }
  state.store_state();
}

RowRange range(int64_t rows, int64_t ranges, int64_t i) {
  return {rows * i / ranges, rows * (i + 1) / ranges};
}

// Both directions of a layer need all of the layer below.
void run_bidirectional(const Call &call, const Split &split) {
  const LstmShape &shape = call.stack.shape;
  const LstmArguments &a = call.arguments;
  const int64_t width = shape.layer_input_size(1);
  const int64_t last_step = a.time_steps - 1;
  const int64_t all_rows = call.schedule.start(last_step) + call.schedule.active(last_step);
  Workspace memory;
  Plane planes[2];
  for (int64_t i = 0; i < std::min<int64_t>(2, shape.num_layers - 1); ++i)
    planes[i] = {Plane::Addressing::contiguous,
                 reinterpret_cast<uint8_t *>(memory.allocate<float>(all_rows * width)),
                 DataType::float32, width * int64_t{sizeof(float)}};
  const Plane x = x_plane(a), y = y_plane(a);
  for (int64_t layer = 0; layer < shape.num_layers; ++layer) {
    const Plane &in = layer == 0 ? x : planes[(layer - 1) % 2];
    const Plane &out = layer + 1 == shape.num_layers ? y : planes[layer % 2];
    parallel_for(static_cast<int>(2 * split.ranges), split.threads, [&](int task) {
      run_direction(call, layer, task % 2, range(a.batch_size, split.ranges, task / 2), in, out);
    });
  }
}

// y is zero past a row's length.
void clear_padding(const Call &call) {
  const LstmArguments &a = call.arguments;
  const LstmShape &shape = call.stack.shape;
  const int64_t bytes = shape.num_directions * shape.output_size() * bytes_of(a.data_type);
  const Plane y = y_plane(a);
  for (int64_t t = 0; t < a.time_steps; ++t)
    for (int64_t row = call.schedule.active(t); row < a.batch_size; ++row)
      std::memset(y.at(call.schedule, t, row, 0), 0, static_cast<size_t>(bytes));
}

} // namespace

void run_stack(const PackedStack &stack, const LstmArguments &a) {
  const LstmShape &shape = stack.shape;
  const Call call{stack, a, active_kernels(), Schedule(a)};
  if (a.batch_size == 0)
    return;
  check_memory(a, shape);
  if (a.lengths)
    clear_padding(call);

  const Split split = split_of(stack, a);
  if (shape.num_directions == 2)
    return run_bidirectional(call, split);
  parallel_for(static_cast<int>(split.ranges), split.threads,
               [&](int i) { run_forward(call, range(a.batch_size, split.ranges, i)); });
}

void release_memory() {
  release_workers();
  release_workspaces();
}

void lstm_forward(const void *packed, size_t bytes, const LstmArguments &arguments) {
  run_stack(PackedStack(packed, bytes), arguments);
}

} // namespace lstm_fastkernels
