// The way of a sequence through a stack: which rows work at which step, chunks, layers, threads.
// All arithmetic is in the kernels.
#include <algorithm>
#include <array>
#include <chrono>
#include <new>
#include <optional>
#include <type_traits>

#include "common/fail.h"
#include "common/plane.h"
#include "runtime/direction.h"
#include "runtime/pace.h"
#include "runtime/spin.h"
#include "runtime/split.h"
#include "runtime/stack.h"
#include "runtime/thread_pool.h"
#include "runtime/token_ids.h"
#include "runtime/wavefront.h"

namespace lstm_fastkernels {
namespace {

// Steps are taken in chunks whose input products fill about this many bytes: they stay in L2, and
// memory does not grow with the sequence.
constexpr int64_t kChunkBytes = int64_t{192} << 10;
constexpr int64_t kMaxChunkRows = 192;
constexpr int64_t kMinChunkRows = 12;
// Where weights, of 8 bits, push them out of L2 all the same: then the input's are read for more
// rows at once.
constexpr int64_t kMinChunkRowsBeyond = 48;
// In which those come who are awake.
constexpr std::chrono::microseconds kArrival{3};
// While members of a team are still to come, chunks are short so often.
constexpr int kShortChunks = 16;

int64_t rows_a_chunk(const Call &call, int64_t active_rows) {
  const int64_t fitting = kChunkBytes / (call.gates_per_row() * int64_t{sizeof(float)});
  const bool beyond = call.stack.layers[0].hh.products() > kBytesOfL2;
  const int64_t wanted =
      std::clamp(fitting, beyond ? kMinChunkRowsBeyond : kMinChunkRows, kMaxChunkRows);
  return std::max(active_rows, std::min(wanted, active_rows * call.arguments.time_steps));
}

// Of layers that run at once.
int64_t rows_a_short_chunk(const Call &call, int64_t active_rows) {
  const int64_t wanted = active_rows * call.arguments.time_steps / kChunksOfWavefront;
  return std::min(rows_a_chunk(call, active_rows),
                  std::max({active_rows, kShortChunkRows, wanted}));
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
    team.run([&](const Member &member) { run(chunk, member); },
             chunk.end == call.arguments.time_steps);
  }
}

RowRange range(int64_t rows, int64_t ranges, int64_t i) {
  return {rows * i / ranges, rows * (i + 1) / ranges};
}

// The layers of an LSTM of one direction, for a range of rows.
class Layers {
public:
  // For chunks of at most `most_rows` rows, so many of which are between two layers, and so many
  // teams at once.
  Layers(const Call &call, Workspace &memory, RowRange rows, int64_t most_rows, int most_members,
         int64_t places, int64_t teams)
      : call_(call), y_(y_plane(call.arguments)), places_(places) {
    const LstmShape &shape = call.stack.shape;
    const int64_t row_bytes = shape.output_size() * int64_t{sizeof(float)};
    const int64_t planes = (num_layers() - 1) * places;
    static_assert(std::is_trivially_destructible_v<Direction>);
    layers_ = memory.allocate<Direction>(num_layers());
    between_ = memory.allocate<Plane>(planes);
    for (int64_t i = 0; i < planes; ++i)
      new (between_ + i)
          Plane{Plane::Addressing::chunk, memory.allocate<uint8_t>(most_rows * row_bytes),
                DataType::float32, row_bytes};
    for (int64_t layer = 0; layer < num_layers(); ++layer) {
      new (layers_ + layer) Direction(call, memory, layer, 0, rows, most_rows, most_members);
      gates_count_ = std::max(gates_count_, layers_[layer].gates_count());
    }
    gates_ = memory.allocate<float>(teams * gates_count_);
  }

  int64_t num_layers() const { return call_.stack.shape.num_layers; }
  const Direction &first() const { return layers_[0]; }

  // The i-th chunk of a layer, by a member of the `team`-th team.
  void run(int64_t layer, Chunk chunk, int64_t i, int64_t team, const Member &member) const {
    const auto behind = [&](int64_t below) -> const Plane & {
      return between_[below * places_ + i % places_];
    };
    const bool last = layer + 1 == num_layers();
    layers_[layer].run(chunk, layer == 0 ? call_.x : behind(layer - 1), last ? y_ : behind(layer),
                       gates_ + team * gates_count_, member);
  }
  void store_state() const {
    for (int64_t layer = 0; layer < num_layers(); ++layer)
      layers_[layer].store_state();
  }

private:
  const Call &call_;
  const Plane y_;
  const int64_t places_;
  int64_t gates_count_ = 0; // of a team
  float *gates_;
  Direction *layers_;
  Plane *between_; // [layer][place]
};

// One direction only: every chunk goes through all layers, so that memory does not grow with T.
void run_forward(const Call &call, RowRange rows, Team &team) {
  Workspace memory;
  const int64_t most_rows = rows_a_chunk(call, rows.size());
  const Layers layers(call, memory, rows, most_rows, team.most(), 1, 1);
  for_each_chunk(call, layers.first(), most_rows, team, [&](Chunk chunk, const Member &member) {
    for (int64_t layer = 0; layer < layers.num_layers(); ++layer)
      layers.run(layer, chunk, 0, 0, member);
  });
  layers.store_state();
}

// The same with several layers at once, each on the chunks that the one below has done.
class LayersAtOnce {
public:
  LayersAtOnce(const Call &call, Workspace &memory, RowRange rows, int64_t threads)
      : most_rows_(rows_a_short_chunk(call, rows.size())),
        layers_(call, memory, rows, most_rows_, 1, Wavefront::kPlaces, threads),
        chunks_(memory.allocate<Chunk>(layers_.num_layers())),
        wavefront_(memory, layers_.num_layers(), count_chunks(call)) {
    std::fill_n(chunks_, layers_.num_layers(), Chunk{0, 0});
  }

  // One of the threads. The work of those that never come is done by the others.
  void work(int64_t thread) {
    wavefront_.work(thread % layers_.num_layers(), [&](int64_t layer, int64_t i) {
      chunks_[layer] = next(chunks_[layer]);
      layers_.run(layer, chunks_[layer], i, thread, Member());
    });
  }
  void store_state() const { layers_.store_state(); }

private:
  Chunk next(Chunk chunk) const { return layers_.first().next_chunk(chunk.end, most_rows_); }
  int64_t count_chunks(const Call &call) const {
    int64_t count = 0;
    for (Chunk chunk{0, 0}; chunk.end < call.arguments.time_steps; ++count)
      chunk = next(chunk);
    return count;
  }

  const int64_t most_rows_;
  const Layers layers_;
  Chunk *const chunks_; // of each layer, the last one
  Wavefront wavefront_;
};

void run_layers_at_once(const Call &call, const Split &split) {
  Workspace memory;
  std::array<std::optional<LayersAtOnce>, kMostTeams> ranges;
  for (int64_t i = 0; i < split.ranges; ++i)
    ranges[static_cast<size_t>(i)].emplace(
        call, memory, range(call.arguments.batch_size, split.ranges, i), split.layers);
  parallel_for(static_cast<int>(split.ranges * split.layers), split.threads, [&](int i) {
    ranges[static_cast<size_t>(i % split.ranges)]->work(i / split.ranges);
  });
  for (int64_t i = 0; i < split.ranges; ++i)
    ranges[static_cast<size_t>(i)]->store_state();
}

void run_direction(const Call &call, int64_t layer, int64_t direction, RowRange rows,
                   const Plane &in, const Plane &out, Team &team) {
  Workspace memory;
  const LstmShape &shape = call.stack.shape;
  const int64_t most_rows = rows_a_chunk(call, rows.size());
  const Direction state(call, memory, layer, direction, rows, most_rows, team.most());
  float *gates = memory.allocate<float>(state.gates_count());
  const Plane columns = out.columns_from(direction * shape.output_size());
  for_each_chunk(call, state, most_rows, team, [&](Chunk chunk, const Member &member) {
    state.run(chunk, in, columns, gates, member);
  });
  state.store_state();
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
    note_arrival(spin_until([&] { return team.is_complete(); }, kArrival));
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

void run_split(const Call &call, const Split &split) {
  if (call.stack.shape.num_directions == 2)
    return run_bidirectional(call, split);
  if (split.layers > 1)
    return run_layers_at_once(call, split);
  run_teams(split, split.ranges, [&](int64_t i, Team &team) {
    run_forward(call, range(call.arguments.batch_size, split.ranges, i), team);
  });
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
  // The thread's next call goes on as a step of this one would.
  thread_local bool backwards = false;
  const Call call{stack, a, active_kernels(), schedule, state_rows, x, backwards};
  backwards ^= a.time_steps % 2 != 0;
  if (a.lengths)
    clear_padding(call);
  const Split split = given ? *given : split_of(stack, a, &follows_closely);
  run_split(call, split);
  if (a.threads > 1 && split.products >= kProductsWorthAnAwakeThread)
    note_end_of_call();
}

void release_memory() {
  release_workers();
  release_workspaces();
}

void lstm_forward(const void *packed, size_t bytes, const LstmArguments &arguments) {
  run_stack(PackedStack(packed, bytes), arguments);
}

} // namespace lstm_fastkernels
