// The way of a sequence through a stack: which rows work at which step, chunks, layers, threads.
// All arithmetic is in the kernels.
#include <algorithm>
#include <array>
#include <new>
#include <optional>
#include <type_traits>

#include "common/fail.h"
#include "common/plane.h"
#include "runtime/cell_state.h"
#include "runtime/split.h"
#include "runtime/stack.h"
#include "runtime/thread_pool.h"
#include "runtime/token_ids.h"

namespace lstm_fastkernels {
namespace {

// Steps are taken in chunks whose input products fill about this many bytes: they stay in L2, and
// memory does not grow with the sequence.
constexpr int64_t kChunkBytes = int64_t{192} << 10;
constexpr int64_t kMaxChunkRows = 192;
constexpr int64_t kMinChunkRows = 12;
// While members of a team are still to come.
constexpr int64_t kShortChunkRows = 4;
constexpr int kShortChunks = 16;

// A run of time steps in the direction of travel: step s is time s, or T - 1 - s in reverse.
struct Chunk {
  int64_t begin, end;
};

// One layer and direction for a range of rows, a chunk of steps at a time. All of a team's members
// run the same chunk at once, each on its share.
class Direction {
public:
  // For chunks of at most `most_rows` rows.
  Direction(const Call &call, Workspace &memory, int64_t layer, int64_t direction, RowRange rows,
            int64_t most_rows, int most_members)
      : call_(call), reverse_(direction == 1), rows_(rows),
        cell_(layer * call.stack.shape.num_directions + direction),
        ih_(call.stack.layers[static_cast<size_t>(cell_)].ih),
        bias_(call.stack.layers[static_cast<size_t>(cell_)].bias),
        columns_(call.stack.shape.layer_input_size(layer)),
        state_(call, memory, cell_, rows, most_members), steps_(call.arguments.time_steps) {
    if (!is_table(ih_.arithmetic)) {
      input_.emplace(memory, ih_, most_rows, columns_, most_members);
      widened_ = memory.allocate<float>(most_members * columns_);
    }
    while (steps_ > 0 && active(steps_ - 1) == 0)
      --steps_;
  }

  // The next chunk of at most `most_rows` rows, at least one step.
  Chunk next_chunk(int64_t begin, int64_t most_rows) const {
    int64_t end = begin, rows = 0;
    do
      rows += active(time(end++));
    while (end < call_.arguments.time_steps && rows + active(time(end)) <= most_rows);
    return {begin, end};
  }

  // `gates` is scratch for the chunk's rows. Input rows are read before any output row is written,
  // and all output rows are when it returns.
  void run(Chunk chunk, const Plane &in, const Plane &out, float *gates,
           const Member &member) const noexcept {
    int64_t rows = 0;
    for (int64_t s = chunk.begin; s < chunk.end; ++s)
      rows += active(time(s));
    if (input_)
      multiply(chunk, rows, in, gates, member);
    else
      look_up_ids(chunk, rows, in, gates, member);

    const RowRange share = state_.share_of_output(member);
    int64_t first = 0;
    for (int64_t s = chunk.begin; s < chunk.end; ++s) {
      const int64_t n = active(time(s));
      if (n == 0)
        continue; // rows that have ended, or not begun
      const int64_t step = step_of(s);
      state_.step(step, n, gates + first * call_.gates_per_row(), member);
      for (int64_t row = 0; row < n; ++row)
        narrow(state_.output(step + 1, row) + share.begin, share.size(), out.type,
               out.at(call_.schedule, time(s), rows_.begin + row, first + row) +
                   share.begin * bytes_of(out.type));
      first += n;
    }
    member.meet();
  }

  void store_state() const { state_.store(steps_); }

private:
  int64_t active(int64_t t) const {
    return std::clamp<int64_t>(call_.schedule.active(t) - rows_.begin, 0, rows_.size());
  }
  int64_t time(int64_t s) const { return reverse_ ? call_.arguments.time_steps - 1 - s : s; }
  // Of those that have rows.
  int64_t step_of(int64_t s) const {
    return reverse_ ? s - (call_.arguments.time_steps - steps_) : s;
  }

  // Calls visit(chunk row, its place in the plane) for a range of a chunk's rows.
  template <class Visit>
  void for_each_row(Chunk chunk, RowRange range, const Plane &in, const Visit &visit) const {
    int64_t first = 0;
    for (int64_t s = chunk.begin; s < chunk.end && first < range.end; ++s) {
      const int64_t n = active(time(s)), end = std::min(n, range.end - first);
      for (int64_t row = std::max<int64_t>(range.begin - first, 0); row < end; ++row)
        visit(first + row, in.at(call_.schedule, time(s), rows_.begin + row, first + row));
      first += n;
    }
  }

  // The input part of a chunk's gates: of a member's tiles, or of its rows for all members.
  void multiply(Chunk chunk, int64_t rows, const Plane &in, float *gates,
                const Member &member) const {
    float *const widened = widened_ + member.index() * columns_;
    for_each_row(chunk, input_->share(rows, member), in,
                 [&](int64_t chunk_row, const uint8_t *row) {
                   quantize_input(row, in.type, chunk_row, widened, member);
                 });
    call_.kernels.products(ih_, share_of(ih_, member), bias_, rows,
                           input_->take(call_.kernels, rows, member), gates);
    // Members go on with the gates that they made, unless the two matrices are shared out
    // otherwise.
    if (ih_.is_sparse() != call_.stack.layers[static_cast<size_t>(cell_)].hh.is_sparse())
      member.meet();
  }
  void look_up_ids(Chunk chunk, int64_t rows, const Plane &in, float *gates,
                   const Member &member) const {
    const RowRange share{member.first(rows), member.last(rows)};
    for_each_row(chunk, share, in, [&](int64_t chunk_row, const uint8_t *row) {
      call_.kernels.look_up(ih_, read<int32_t>(row, 0), bias_,
                            gates + chunk_row * call_.gates_per_row());
    });
    member.meet();
  }

  void quantize_input(const uint8_t *row, DataType type, int64_t to, float *widened,
                      const Member &member) const {
    const float *values = reinterpret_cast<const float *>(row);
    if (type != DataType::float32) {
      widen(row, type, columns_, widened);
      values = widened;
    }
    input_->quantize(call_.kernels, to, values, RowKind::any, member);
  }

  const Call &call_;
  const bool reverse_;
  const RowRange rows_;
  const int64_t cell_;
  const PackedMatrix &ih_;
  const uint8_t *bias_;
  const int64_t columns_;        // of the input
  std::optional<Operand> input_; // none where the matrix is a table
  float *widened_ = nullptr;     // a row for each member
  const CellState state_;
  int64_t steps_; // that have rows
};

int64_t rows_a_chunk(const Call &call, int64_t active_rows) {
  const int64_t fitting = kChunkBytes / (call.gates_per_row() * int64_t{sizeof(float)});
  const int64_t wanted = std::clamp(fitting, kMinChunkRows, kMaxChunkRows);
  return std::max(active_rows, std::min(wanted, active_rows * call.arguments.time_steps));
}

// Calls run(chunk, member) for all chunks of `first`, on all who are in the team by then. While
// some are still to come, chunks are short, but only so often.
template <class Run>
void for_each_chunk(const Call &call, const Direction &first, int64_t most_rows, Team &team,
                    const Run &run) {
  int short_chunks = kShortChunks;
  for (Chunk chunk{0, 0}; chunk.end < call.arguments.time_steps;) {
    const bool waiting = !team.is_complete() && short_chunks-- > 0;
    chunk = first.next_chunk(chunk.end, waiting ? std::min(most_rows, kShortChunkRows) : most_rows);
    team.run([&](const Member &member) { run(chunk, member); });
  }
}

// One direction only: every chunk goes through all layers, so that memory does not grow with T.
void run_forward(const Call &call, RowRange rows, Team &team) {
  Workspace memory;
  const LstmShape &shape = call.stack.shape;
  const LstmArguments &a = call.arguments;
  const int64_t most_rows = rows_a_chunk(call, rows.size());
  float *gates = memory.allocate<float>(most_rows * call.gates_per_row());
  float *between = memory.allocate<float>(most_rows * shape.output_size());
  const Plane layers_plane{Plane::Addressing::chunk, reinterpret_cast<uint8_t *>(between),
                           DataType::float32, shape.output_size() * int64_t{sizeof(float)}};
  const Plane y = y_plane(a);
  static_assert(std::is_trivially_destructible_v<Direction>);
  Direction *const layers = memory.allocate<Direction>(shape.num_layers);
  for (int64_t layer = 0; layer < shape.num_layers; ++layer)
    new (layers + layer) Direction(call, memory, layer, 0, rows, most_rows, team.most());
  for_each_chunk(call, layers[0], most_rows, team, [&](Chunk chunk, const Member &member) {
    for (int64_t layer = 0; layer < shape.num_layers; ++layer) {
      const bool last = layer + 1 == shape.num_layers;
      layers[layer].run(chunk, layer == 0 ? call.x : layers_plane, last ? y : layers_plane, gates,
                        member);
    }
  });
  for (int64_t layer = 0; layer < shape.num_layers; ++layer)
    layers[layer].store_state();
}

void run_direction(const Call &call, int64_t layer, int64_t direction, RowRange rows,
                   const Plane &in, const Plane &out, Team &team) {
  Workspace memory;
  const LstmShape &shape = call.stack.shape;
  const int64_t most_rows = rows_a_chunk(call, rows.size());
  float *gates = memory.allocate<float>(most_rows * call.gates_per_row());
  const Direction state(call, memory, layer, direction, rows, most_rows, team.most());
  const Plane columns = out.columns_from(direction * shape.output_size());
  for_each_chunk(call, state, most_rows, team, [&](Chunk chunk, const Member &member) {
    state.run(chunk, in, columns, gates, member);
  });
  state.store_state();
}

RowRange range(int64_t rows, int64_t ranges, int64_t i) {
  return {rows * i / ranges, rows * (i + 1) / ranges};
}

// Calls lead(i, team) for each i below `count`, on a thread of its own where there are so many,
// with a team of split.members.
template <class Lead> void run_teams(const Split &split, int64_t count, const Lead &lead) {
  if (split.members == 1) {
    static Team alone(1); // for everyone: it has nothing to remember
    return parallel_for(static_cast<int>(count), split.threads, [&](int i) { lead(i, alone); });
  }
  std::array<std::optional<Team>, kMostTeams> teams;
  std::for_each_n(teams.begin(), count,
                  [&](auto &team) { team.emplace(static_cast<int>(split.members)); });
  parallel_for(static_cast<int>(count * split.members), split.threads, [&](int i) {
    Team &team = *teams[static_cast<size_t>(i % count)];
    if (i >= count)
      return team.serve();
    const struct Closing { // whatever happens
      Team &team;
      ~Closing() { team.close(); }
    } closing{team};
    lead(i, team);
  });
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
  const Plane y = y_plane(a);
  for (int64_t layer = 0; layer < shape.num_layers; ++layer) {
    const Plane &in = layer == 0 ? call.x : planes[(layer - 1) % 2];
    const Plane &out = layer + 1 == shape.num_layers ? y : planes[layer % 2];
    run_teams(split, 2 * split.ranges, [&](int64_t i, Team &team) {
      run_direction(call, layer, i % 2, range(a.batch_size, split.ranges, i / 2), in, out, team);
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

void run_stack(const PackedStack &stack, const LstmArguments &a, const Split *given) {
  const LstmShape &shape = stack.shape;
  check_input_kind(a, stack.takes_ids());
  const Schedule schedule(a);
  const StateRows state_rows(a);
  if (a.batch_size == 0)
    return;
  check_memory(a, shape);
  Workspace memory;
  const Plane x =
      stack.takes_ids() ? checked_ids(a, schedule, shape.input_size, memory) : x_plane(a);
  const Call call{stack, a, active_kernels(), schedule, state_rows, x};
  if (a.lengths)
    clear_padding(call);
  const Split split = given ? *given : split_of(stack, a);
  if (shape.num_directions == 2)
    return run_bidirectional(call, split);
  run_teams(split, split.ranges, [&](int64_t i, Team &team) {
    run_forward(call, range(a.batch_size, split.ranges, i), team);
  });
}

void release_memory() {
  release_workers();
  release_workspaces();
}

void lstm_forward(const void *packed, size_t bytes, const LstmArguments &arguments) {
  run_stack(PackedStack(packed, bytes), arguments);
}

} // namespace lstm_fastkernels
