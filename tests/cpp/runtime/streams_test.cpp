// StreamBatch: whatever is done to streams, each has the bits that it has alone.
#include "lstm_fastkernels/streams.h"

#include <limits>
#include <map>

#include "check.h"
#include "stack.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

using Ids = std::vector<int64_t>;
using Bytes = std::vector<uint8_t>;

Lstm lstm_of(const SourceStack &stack) {
  const HeldStack held = stack.held();
  return Lstm(held.shape, held.views().data());
}

Bytes saved(const State &state) {
  Bytes bytes(state.saved_bytes());
  state.save(bytes.data(), bytes.size());
  return bytes;
}

Bytes saved(const StreamBatch &batch, int64_t stream) {
  Bytes bytes(batch.saved_bytes());
  batch.save(stream, bytes.data(), bytes.size());
  return bytes;
}

Bytes saved(const StreamBatch &batch) {
  Bytes all;
  for (const int64_t stream : batch.streams()) {
    const Bytes one = saved(batch, stream);
    all.insert(all.end(), one.begin(), one.end());
  }
  return all;
}

Bytes narrowed(const std::vector<float> &from, DataType type) {
  Bytes to(from.size() * static_cast<size_t>(bytes_of(type)));
  narrow(from.data(), static_cast<int64_t>(from.size()), type, to.data());
  return to;
}

// One time step of a stream that has a State of its own.
Bytes step_alone(const Lstm &lstm, const Bytes &x, const TickOptions &options, State &state) {
  Bytes y(static_cast<size_t>(lstm.shape().output_size() * bytes_of(options.data_type)));
  LstmArguments a;
  a.time_steps = a.batch_size = 1;
  a.data_type = options.data_type;
  a.id_type = options.id_type;
  a.x = x.data();
  a.y = y.data();
  a.h0 = a.h_n = state.h();
  a.c0 = a.c_n = state.c();
  lstm.forward(a);
  return y;
}

// A batch, and beside it each of its streams alone.
class Pair {
public:
  Pair(const Lstm &lstm, int64_t capacity, DataType type, uint64_t seed)
      : lstm_(lstm), type_(type), batch_(lstm, capacity), random_(seed) {}

  void do_something() {
    const int64_t action = random_.integer(0, 9);
    const bool full = batch_.size() == batch_.capacity();
    if (alone_.empty() || (action < 2 && !full))
      alone_.emplace(batch_.join(), State(lstm_.shape()));
    else if (action == 2)
      leave(any());
    else if (action == 3)
      reset(any());
    else if (action == 4 && !full)
      fork(any());
    else if (action == 5)
      reorder();
    else if (action == 6)
      exchange(any(), any());
    else
      tick();
  }

  void check_states() const {
    Ids expected;
    for (const auto &[stream, state] : alone_) {
      WITH("stream ", stream);
      expected.push_back(stream);
      CHECK(batch_.has(stream));
      CHECK_SAME(saved(batch_, stream), saved(state));
    }
    CHECK(batch_.streams() == expected);
    CHECK(batch_.size() == static_cast<int64_t>(expected.size()));
    for (const int64_t stream : left_)
      CHECK(!batch_.has(stream));
  }

private:
  int64_t any() {
    return std::next(alone_.begin(), random_.integer(0, static_cast<int64_t>(alone_.size()) - 1))
        ->first;
  }

  // Some of them, each once, in any order.
  Ids some() {
    Ids all = batch_.streams();
    for (size_t i = all.size(); i-- > 1;)
      std::swap(all[i], all[static_cast<size_t>(random_.integer(0, static_cast<int64_t>(i)))]);
    all.resize(static_cast<size_t>(random_.integer(0, static_cast<int64_t>(all.size()))));
    return all;
  }

  void leave(int64_t stream) {
    batch_.leave(stream);
    alone_.erase(stream);
    left_.push_back(stream);
  }

  void reset(int64_t stream) {
    batch_.reset(stream);
    alone_.at(stream).reset();
  }

  void fork(int64_t stream) {
    const int64_t forked = batch_.fork(stream);
    CHECK(alone_.emplace(forked, alone_.at(stream)).second);
  }

  void reorder() {
    const Ids streams = some();
    Ids sources;
    for (size_t i = 0; i < streams.size(); ++i)
      sources.push_back(any());
    batch_.reorder(streams.data(), sources.data(), static_cast<int64_t>(streams.size()));
    const auto before = alone_;
    for (size_t i = 0; i < streams.size(); ++i)
      alone_.at(streams[i]) = before.at(sources[i]);
  }

  // By saved bytes: a State of one row and a stream of a batch read each other's.
  void exchange(int64_t stream, int64_t other) {
    const Bytes bytes = saved(batch_, stream), others = saved(alone_.at(other));
    batch_.restore(stream, others.data(), others.size());
    alone_.at(stream) = alone_.at(other);
    batch_.restore(other, bytes.data(), bytes.size());
    alone_.at(other) = State::restore(bytes.data(), bytes.size());
  }

  Bytes random_ids(int64_t count, IdType type) {
    Bytes ids(static_cast<size_t>(count * bytes_of(type)));
    for (int64_t i = 0; i < count; ++i) {
      const int64_t id = random_.integer(0, lstm_.shape().input_size - 1); // little-endian
      std::memcpy(ids.data() + i * bytes_of(type), &id, static_cast<size_t>(bytes_of(type)));
    }
    return ids;
  }

  // x and y with gaps or without.
  void tick() {
    const Ids streams = some();
    const bool ids = lstm_.takes_ids();
    const int64_t in = ids ? 1 : lstm_.shape().input_size, out = lstm_.shape().output_size(),
                  count = static_cast<int64_t>(streams.size());
    TickOptions options;
    options.data_type = type_;
    if (ids)
      options.id_type = random_.integer(0, 1) ? IdType::int32 : IdType::int64;
    options.x_row_stride = random_.integer(0, 1) ? in + 3 : 0;
    options.y_row_stride = random_.integer(0, 1) ? out + 2 : 0;
    const int64_t x_bytes = ids ? bytes_of(options.id_type) : bytes_of(type_);
    const int64_t x_stride = (options.x_row_stride ? options.x_row_stride : in) * x_bytes;
    const int64_t y_stride = (options.y_row_stride ? options.y_row_stride : out) * bytes_of(type_);
    const int64_t x_count = (count + 1) * (in + 3);
    const Bytes x = ids ? random_ids(x_count, options.id_type)
                        : narrowed(random_reals(x_count, -3, 3, random_.bits()), type_);
    constexpr uint8_t kMark = 0x5a;
    Bytes y(static_cast<size_t>(count * y_stride), kMark), expected = y;
    batch_.tick(streams.data(), count, x.data(), y.data(), options);
    for (int64_t i = 0; i < count; ++i) {
      const auto row = x.begin() + i * x_stride;
      const Bytes one = step_alone(lstm_, Bytes(row, row + in * x_bytes), options,
                                   alone_.at(streams[static_cast<size_t>(i)]));
      std::copy(one.begin(), one.end(), expected.begin() + i * y_stride);
    }
    CHECK_SAME(y, expected);
  }

  const Lstm &lstm_;
  const DataType type_;
  StreamBatch batch_;
  std::map<int64_t, State> alone_;
  Ids left_;
  Random random_;
};

void check_schedules(const SourceStack &stack, uint64_t seed) {
  const Lstm lstm = lstm_of(stack);
  for (DataType type : {DataType::float32, DataType::float16, DataType::bfloat16})
    for (int64_t capacity : {1, 2, 9}) {
      WITH("seed ", seed, " capacity ", capacity, " type ", static_cast<int>(type));
      for_each_isa([&](std::string_view) {
        Pair pair(lstm, capacity, type, seed);
        for (int i = 0; i < 40; ++i) {
          WITH("action ", i);
          pair.do_something();
          pair.check_states();
        }
      });
    }
}

TEST(streams_are_as_alone) {
  for (Precision precision : kPrecisions)
    for (int64_t layers : {1, 3})
      for (int64_t proj : {0, 4}) {
        WITH("precision ", precision_name(precision), " layers ", layers, " proj ", proj);
        check_schedules(random_stack(shape_of(7, 9, proj, layers, 1, precision), Weights::any, 181),
                        182);
      }
}

TEST(streams_of_sparse_and_low_rank_lstms_are_as_alone) {
  for (Precision precision : kPrecisions) {
    WITH("precision ", precision_name(precision));
    const SourceStack stack =
        random_stack(shape_of(33, 31, 17, 2, 1, precision), Weights::pair_safe, 183);
    check_schedules(in_mixed_blocks(stack, 184), 185);
    check_schedules(in_factors(stack, 186), 187);
  }
}

TEST(streams_of_token_ids_are_as_alone) {
  for (Precision table : kTables)
    for (int64_t layers : {1, 2}) {
      WITH("table ", precision_name(table), " layers ", layers);
      const SourceStack stack = random_stack(shape_of(23, 9, 0, layers), Weights::any, 199);
      check_schedules(with_tables(stack, table, 200), 201);
    }
}

// Enough products for threads.
TEST(streams_do_not_depend_on_threads) {
  const SourceStack stack = random_stack(shape_of(129, 129), Weights::any, 188);
  const Lstm lstm = lstm_of(stack);
  constexpr int64_t kStreams = 301;
  Bytes one_thread;
  for (int threads : {1, 2, 5}) {
    WITH("threads ", threads);
    StreamBatch batch(lstm, kStreams);
    Ids streams;
    for (int64_t i = 0; i < kStreams; ++i)
      streams.insert(streams.begin(), batch.join());
    TickOptions options;
    options.threads = threads;
    std::vector<float> y(kStreams * 129);
    for (uint64_t t = 0; t < 2; ++t) {
      const std::vector<float> x = random_reals(kStreams * 129, -3, 3, 189 + t);
      batch.tick(streams.data(), kStreams, x.data(), y.data(), options);
    }
    const Bytes all = saved(batch);
    if (threads == 1)
      one_thread = all;
    CHECK_SAME(all, one_thread);
  }
}

TEST(numbers_of_streams_are_given_once) {
  StreamBatch batch(lstm_of(random_stack(shape_of(3, 5), Weights::any, 190)), 3);
  CHECK(batch.capacity() == 3 && batch.size() == 0 && batch.streams().empty());
  std::map<int64_t, int> given;
  Random random(191);
  for (int i = 0; i < 200; ++i) {
    const Ids there = batch.streams();
    if (there.size() < 3 && random.integer(0, 1))
      CHECK(++given[batch.join()] == 1);
    else if (!there.empty())
      batch.leave(
          there[static_cast<size_t>(random.integer(0, static_cast<int64_t>(there.size()) - 1))]);
  }
  CHECK(given.size() > 50 && given.begin()->first == 0);
}

// A beam search keeps the best of all continuations: some die, some go on twice.
TEST(beams_exchange_their_states_at_once) {
  StreamBatch batch(lstm_of(random_stack(shape_of(3, 5), Weights::any, 192)), 3);
  const Ids beams = {batch.join(), batch.join(), batch.join()};
  const std::vector<float> x = random_reals(9, -3, 3, 193);
  std::vector<float> y(15);
  batch.tick(beams.data(), 3, x.data(), y.data());
  const Bytes before[] = {saved(batch, 0), saved(batch, 1), saved(batch, 2)};
  const Ids sources = {1, 0, 1};
  batch.reorder(beams.data(), sources.data(), 3);
  for (int64_t i = 0; i < 3; ++i)
    CHECK_SAME(saved(batch, i), before[sources[static_cast<size_t>(i)]]);
}

TEST(batches_are_copied_and_keep_their_lstm) {
  std::vector<StreamBatch> batches;
  {
    const Lstm lstm = lstm_of(random_stack(shape_of(3, 5), Weights::any, 194));
    batches.emplace_back(lstm, 2);
  }
  const int64_t stream = batches[0].join();
  batches.push_back(batches[0]);
  const std::vector<float> x = {1, 2, 3};
  std::vector<float> y(5), again(5);
  batches[0].tick(&stream, 1, x.data(), y.data());
  CHECK(saved(batches[0]) != saved(batches[1]));
  batches[1].tick(&stream, 1, x.data(), again.data());
  CHECK_SAME(again, y);
  CHECK_SAME(saved(batches[1]), saved(batches[0]));
}

TEST(batches_that_cannot_be_are_refused) {
  const Lstm lstm = lstm_of(random_stack(shape_of(3, 5), Weights::any, 195));
  for (int64_t capacity :
       {int64_t{0}, int64_t{-1}, int64_t{1} << 31, std::numeric_limits<int64_t>::max()})
    CHECK_THROWS(StreamBatch(lstm, capacity),
                 check::text("capacity must be in 1..2147483647, got ", capacity));
  CHECK_THROWS(StreamBatch(lstm_of(random_stack(shape_of(3, 5, 0, 1, 2), Weights::any, 196)), 3),
               "an LSTM of one direction");
}

// Streams 0, 2 and 4 of a batch for 3; 1 and 3 have left. What is refused changes nothing.
struct Refused {
  Lstm lstm;
  StreamBatch batch = StreamBatch(lstm, 3);
  std::vector<float> x = random_reals(4 * 3, -3, 3, 198), y = std::vector<float>(4 * 4);
  Ids ids = {1, 2, 0, 1};
  TickOptions options;

  static SourceStack stack() { return random_stack(shape_of(3, 5, 4), Weights::any, 197); }

  explicit Refused(const SourceStack &of = stack()) : lstm(lstm_of(of)) {
    for (int i = 0; i < 3; ++i)
      batch.join();
    batch.leave(1);
    options.id_type = lstm.takes_ids() ? IdType::int64 : IdType::none;
    tick({0, 2});
    y.assign(y.size(), 5.0f);
    CHECK(batch.join() == 4);
  }

  template <class Call> void check(const Call &call, const std::string &message) {
    const Bytes before = saved(batch);
    const std::vector<float> y_before = y;
    CHECK_THROWS(call(), message);
    CHECK((batch.streams() == Ids{0, 2, 4}));
    CHECK_SAME(saved(batch), before);
    CHECK_SAME(y, y_before);
  }

  void tick(const Ids &streams) {
    const void *const from = options.id_type == IdType::none ? static_cast<void *>(x.data())
                                                             : static_cast<void *>(ids.data());
    batch.tick(streams.data(), static_cast<int64_t>(streams.size()), from, y.data(), options);
  }
  void reorder(const Ids &streams, const Ids &sources) {
    batch.reorder(streams.data(), sources.data(), static_cast<int64_t>(streams.size()));
  }
};

TEST(streams_that_are_not_there_are_refused) {
  Refused r;
  Bytes room(r.batch.saved_bytes(), 5);
  const Bytes state = saved(r.batch, 0);
  for (int64_t stream :
       {int64_t{-1}, int64_t{1}, int64_t{3}, int64_t{5}, int64_t{7},
        std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()}) {
    const std::string message = check::text("there is no stream ", stream);
    CHECK(!r.batch.has(stream));
    r.check([&] { r.batch.leave(stream); }, message);
    r.check([&] { r.batch.reset(stream); }, message);
    r.check([&] { r.batch.fork(stream); }, message);
    r.check([&] { r.batch.save(stream, room.data(), room.size()); }, message);
    r.check([&] { r.batch.restore(stream, state.data(), state.size()); }, message);
    r.check([&] { r.tick({0, stream}); }, message);
    r.check([&] { r.reorder({0, stream}, {2, 0}); }, message);
    r.check([&] { r.reorder({0, 2}, {2, stream}); }, message);
  }
  CHECK_SAME(room, Bytes(room.size(), 5));
}

TEST(streams_that_are_given_twice_are_refused) {
  Refused r;
  r.check([&] { r.tick({4, 0, 4}); }, "stream 4 is given twice");
  r.check([&] { r.reorder({0, 2, 2}, {4, 0, 4}); }, "stream 2 is given twice");
  r.check([&] { r.tick({0, 2, 4, 0}); }, "count must be in 0..3, each stream once at most, got 4");
  r.check([&] { r.reorder({0, 2, 4, 0}, {0, 0, 0, 0}); }, "count must be in 0..3");
}

TEST(a_full_batch_is_refused) {
  Refused r;
  r.check([&] { r.batch.join(); }, "all 3 places are taken: a stream must leave first");
  r.check([&] { r.batch.fork(2); }, "all 3 places are taken");
}

TEST(bytes_that_are_no_state_of_a_stream_are_refused) {
  Refused r;
  const auto restore = [&](const Bytes &bytes) { r.batch.restore(2, bytes.data(), bytes.size()); };
  const Bytes good = saved(r.batch, 0);
  r.check([&] { restore(Bytes(good.size())); }, "saved state: bad magic number");
  r.check([&] { restore(Bytes(good.begin(), good.end() - 1)); }, "saved state: its sizes need");
  for (int64_t rows : {0, 2})
    r.check([&] { restore(saved(State(r.lstm.shape(), rows))); },
            check::text("restore: the saved state holds ", rows, " rows, a stream has one"));
  for (const LstmShape &other : {shape_of(3, 5), shape_of(3, 6, 4), shape_of(3, 5, 4, 2)})
    r.check([&] { restore(saved(State(other))); }, "restore: the saved state is of another LSTM");
  Bytes room(good.size() + 1, 5);
  r.check([&] { r.batch.save(0, room.data(), room.size()); },
          check::text("save: the state takes ", good.size(), " bytes, not ", room.size()));
  CHECK_SAME(room, Bytes(room.size(), 5));
}

TEST(ticks_that_cannot_be_are_refused) {
  Refused r;
  r.check([&] { r.batch.tick(nullptr, 1, r.x.data(), r.y.data()); }, "streams must not be null");
  const Ids streams = {0, 4};
  r.check([&] { r.batch.reorder(streams.data(), nullptr, 2); }, "sources must not be null");
  r.check([&] { r.batch.tick(streams.data(), -1, r.x.data(), r.y.data()); }, "count must be in");
  r.check([&] { r.batch.reorder(streams.data(), streams.data(), -1); }, "count must be in");
  r.check([&] { r.batch.tick(streams.data(), 2, nullptr, r.y.data()); }, "must not be null");
  r.check([&] { r.batch.tick(streams.data(), 2, r.x.data(), nullptr); }, "must not be null");
  r.options.y_row_stride = 3;
  r.check([&] { r.tick(streams); }, "its strides make rows overlap");
  r.options = {};
  r.options.x_row_stride = std::numeric_limits<int64_t>::max();
  r.check([&] { r.tick(streams); }, "x: its strides are out of range");
  r.options = {};
  r.options.threads = -1;
  r.check([&] { r.tick(streams); }, "threads must not be negative");
}

TEST(ids_that_cannot_be_are_refused) {
  Refused values, r(with_tables(Refused::stack(), kTable, 202));
  for (int64_t wrong : {int64_t{-1}, int64_t{3}, int64_t{1} << 32}) {
    r.ids[1] = wrong;
    r.check([&] { r.tick({0, 4}); },
            check::text("token ids must be in 0..2, got ", wrong, " at time step 0 of row 1"));
  }
  r.options.id_type = IdType::none;
  r.check([&] { r.tick({0, 4}); }, "this LSTM reads token ids");
  values.options.id_type = IdType::int32;
  values.check([&] { values.tick({0, 4}); }, "this LSTM reads values");
}

TEST(a_tick_of_no_streams_does_nothing) {
  Refused r;
  const Bytes before = saved(r.batch);
  r.batch.tick(nullptr, 0, nullptr, nullptr);
  r.batch.reorder(nullptr, nullptr, 0);
  CHECK_SAME(saved(r.batch), before);
}

// A row that is not finite is NaN from there on, and no other.
TEST(streams_that_are_not_finite_leave_others_alone) {
  Refused r;
  const Bytes before = saved(r.batch, 2);
  r.x[3] = std::numeric_limits<float>::infinity(); // of stream 4
  r.tick({0, 4});
  CHECK(r.y[0] == r.y[0] && r.y[4] != r.y[4]);
  CHECK_SAME(saved(r.batch, 2), before);
  r.batch.reset(4);
  r.x[3] = 1;
  r.tick({4});
  CHECK(r.y[0] == r.y[0]);
}

} // namespace
} // namespace lstm_fastkernels
