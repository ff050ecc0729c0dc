// Lstm and State against lstm_forward, however a sequence is laid out or cut.
#include "lstm_fastkernels/model.h"

#include <limits>

#include "check.h"
#include "stack.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

// Calls test(stack) with all kinds of stacks.
template <class Test> void for_each_stack(int64_t directions, const Test &test) {
  for (Precision precision : kPrecisions)
    for (int64_t layers : {1, 3})
      for (int64_t proj : {0, 4}) {
        WITH("precision ", precision_name(precision), " layers ", layers, " directions ",
             directions, " proj ", proj);
        const SourceStack stack =
            random_stack(shape_of(7, 9, proj, layers, directions, precision), Weights::any, 111);
        test(precision == kFloat32 ? in_blocks(stack, {8, 4}, 0.5f) : stack);
      }
}

Lstm lstm_of(const SourceStack &stack) {
  const HeldStack held = stack.held();
  return Lstm(held.shape, held.views().data());
}

State state_of(const Sequence &s) {
  State state(s.shape, s.B);
  std::copy(s.h0.begin(), s.h0.end(), state.h());
  std::copy(s.c0.begin(), s.c0.end(), state.c());
  return state;
}

std::vector<float> h_of(const State &s) {
  return {s.h(), s.h() + s.layers() * s.batch_size() * s.output_size()};
}
std::vector<float> c_of(const State &s) {
  return {s.c(), s.c() + s.layers() * s.batch_size() * s.hidden_size()};
}

// By Lstm::forward, in place of the state.
Result run(const Lstm &lstm, const Sequence &s, const ForwardOptions &options = {}) {
  State state = state_of(s);
  Result result;
  result.y.assign(static_cast<size_t>(s.T * s.B * s.y_columns()), 12345.0f);
  lstm.forward(s.x.data(), s.T, s.B, state, result.y.data(), options);
  return {result.y, h_of(state), c_of(state)};
}

template <class Test> void for_any_directions(const Test &test) {
  for (int64_t directions : {1, 2})
    for_each_stack(directions, test);
}

TEST(an_lstm_is_as_its_packed_weights) {
  for_any_directions([](const SourceStack &stack) {
    const Lstm lstm = lstm_of(stack), copy = lstm;
    const auto packed = stack.packed();
    CHECK(lstm.packed_bytes() == packed.size());
    CHECK(lstm.shape().hidden_size == 9 && lstm.shape().proj_size == stack.shape.proj_size);
    for (int64_t B : {1, 5}) {
      const Sequence sequence = random_sequence(stack.shape, 4, B, 112);
      for_each_isa([&](std::string_view) {
        const Result expected = forward(packed, sequence);
        check_same(run(lstm, sequence), expected);
        check_same(forward(copy, sequence), expected);
      });
    }
  });
}

TEST(an_lstm_takes_lengths) {
  const std::vector<int64_t> lengths = {4, 1, 3, 4, 2};
  for_any_directions([&](const SourceStack &stack) {
    const Sequence sequence = random_sequence(stack.shape, 4, 5, 113);
    ForwardOptions options;
    options.lengths = lengths.data();
    const Lstm lstm = lstm_of(stack);
    const auto packed = stack.packed();
    for_each_isa([&](std::string_view) {
      check_same(run(lstm, sequence, options), forward(packed, sequence, 1, lengths));
    });
  });
}

// Each row of `columns` starts `row_stride` behind the one before, each step `time_stride`.
std::vector<float> spread(const std::vector<float> &dense, int64_t B, int64_t columns,
                          int64_t row_stride, int64_t time_stride, float gap) {
  const int64_t T = static_cast<int64_t>(dense.size()) / (B * columns);
  std::vector<float> wide(static_cast<size_t>(T * time_stride + B * row_stride), gap);
  for (int64_t t = 0; t < T; ++t)
    for (int64_t row = 0; row < B; ++row)
      std::copy_n(dense.begin() + (t * B + row) * columns, columns,
                  wide.begin() + t * time_stride + row * row_stride);
  return wide;
}

void check_strides(const SourceStack &stack, const ForwardOptions &options, int64_t T, int64_t B) {
  const Sequence s = random_sequence(stack.shape, T, B, 114);
  const Result expected = forward(stack.packed(), s);
  const auto or_dense = [](int64_t stride, int64_t dense) { return stride ? stride : dense; };
  const int64_t x_row = or_dense(options.x_row_stride, s.shape.input_size);
  const int64_t y_row = or_dense(options.y_row_stride, s.y_columns());
  const int64_t x_time = or_dense(options.x_time_stride, B * x_row);
  const int64_t y_time = or_dense(options.y_time_stride, B * y_row);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> x = spread(s.x, B, s.shape.input_size, x_row, x_time, nan);
  const std::vector<float> expected_y = spread(expected.y, B, s.y_columns(), y_row, y_time, 5);
  const Lstm lstm = lstm_of(stack);
  for_each_isa([&](std::string_view) {
    std::vector<float> y(expected_y.size(), 5.0f);
    State state = state_of(s);
    lstm.forward(x.data(), T, B, state, y.data(), options);
    CHECK_SAME(y, expected_y);
    CHECK_SAME(h_of(state), expected.h);
    CHECK_SAME(c_of(state), expected.c);
  });
}

TEST(an_lstm_takes_strides) {
  for_any_directions([](const SourceStack &stack) {
    const int64_t columns = stack.shape.num_directions * stack.shape.output_size();
    ForwardOptions gaps;
    gaps.x_row_stride = 11;
    gaps.y_row_stride = columns + 2;
    check_strides(stack, gaps, 4, 3);
    gaps.x_time_stride = 50;
    gaps.y_time_stride = 3 * columns + 17;
    check_strides(stack, gaps, 4, 3);
    ForwardOptions batch_first; // of 4 steps
    batch_first.x_row_stride = 4 * 7;
    batch_first.x_time_stride = 7;
    batch_first.y_row_stride = 4 * columns;
    batch_first.y_time_stride = columns;
    check_strides(stack, batch_first, 4, 3);
  });
}

TEST(steps_are_as_one_call) {
  for_each_stack(1, [](const SourceStack &stack) {
    const Lstm lstm = lstm_of(stack);
    for (int64_t B : {1, 3}) {
      const Sequence s = random_sequence(stack.shape, 9, B, 115);
      for_each_isa([&](std::string_view) {
        State state = state_of(s);
        std::vector<float> y(static_cast<size_t>(s.T * B * s.y_columns()));
        for (int64_t t = 0; t < s.T; ++t)
          lstm.step(s.x.data() + t * B * s.shape.input_size, state,
                    y.data() + t * B * s.y_columns());
        check_same({y, h_of(state), c_of(state)}, run(lstm, s));
      });
    }
  });
}

TEST(chunks_are_as_one_call) {
  for_each_stack(1, [](const SourceStack &stack) {
    const Lstm lstm = lstm_of(stack);
    const Sequence s = random_sequence(stack.shape, 40, 2, 116);
    const int64_t cuts[] = {0, 1, 8, 9, 33, 40};
    for_each_isa([&](std::string_view) {
      State state = state_of(s);
      std::vector<float> y(static_cast<size_t>(s.T * s.B * s.y_columns()));
      for (int i = 0; i < 5; ++i)
        lstm.forward(s.x.data() + cuts[i] * s.B * s.shape.input_size, cuts[i + 1] - cuts[i], s.B,
                     state, y.data() + cuts[i] * s.B * s.y_columns());
      check_same({y, h_of(state), c_of(state)}, run(lstm, s));
    });
  });
}

// Enough products for threads. forward_test.cpp has threads on every instruction set.
TEST(an_lstm_does_not_depend_on_threads) {
  for (int64_t directions : {1, 2})
    for (int64_t proj : {0, 40}) {
      WITH("directions ", directions, " proj ", proj);
      const SourceStack stack =
          random_stack(shape_of(129, 129, proj, 2, directions), Weights::pair_safe, 117);
      const Lstm lstm = lstm_of(stack);
      const Sequence s = random_sequence(stack.shape, 30, 9, 118);
      const Result expected = forward(stack.packed(), s);
      for (int threads : {0, 1, 2, 3, 7}) {
        WITH("threads ", threads);
        ForwardOptions options;
        options.threads = threads;
        check_same(run(lstm, s, options), expected);
      }
    }
}

TEST(an_empty_batch_is_left_alone) {
  for_any_directions([](const SourceStack &stack) {
    State state(stack.shape, 0);
    const Lstm lstm = lstm_of(stack);
    for_each_isa([&](std::string_view) {
      lstm.forward(nullptr, 3, 0, state, nullptr);
      lstm.step(nullptr, state, nullptr);
    });
  });
}

// A call that is refused, and what it must not touch.
struct Refused {
  SourceStack stack = random_stack(shape_of(7, 9, 4, 2), Weights::any, 119);
  Lstm lstm = lstm_of(stack);
  Sequence s = random_sequence(stack.shape, 3, 2, 120);
  State state = state_of(s);
  std::vector<float> y = std::vector<float>(static_cast<size_t>(3 * 2 * 4), 5.0f);
  ForwardOptions options;

  template <class Call> void check(const Call &call, const std::string &message) {
    const std::vector<float> h = h_of(state), c = c_of(state), before = y;
    CHECK_THROWS(call(), message);
    CHECK_SAME(h_of(state), h);
    CHECK_SAME(c_of(state), c);
    CHECK_SAME(y, before);
  }
};

TEST(states_of_other_lstms_are_refused) {
  Refused call;
  for (const LstmShape &other :
       {shape_of(7, 9, 4, 1), shape_of(7, 9, 4, 3), shape_of(7, 9, 5, 2), shape_of(7, 9, 0, 2),
        shape_of(7, 10, 4, 2), shape_of(7, 9, 4, 2, 2)}) {
    call.state = State(other, 2);
    call.check([&] { call.lstm.forward(call.s.x.data(), 3, 2, call.state, call.y.data()); },
               "state: it was made for another LSTM");
    call.check([&] { call.lstm.step(call.s.x.data(), call.state, call.y.data()); },
               "state: it was made for another LSTM");
  }
}

TEST(states_of_other_batches_are_refused) {
  Refused call;
  for (int64_t rows : {0, 1, 3}) {
    call.state = State(call.stack.shape, rows);
    call.check([&] { call.lstm.forward(call.s.x.data(), 3, 2, call.state, call.y.data()); },
               check::text("state: it holds ", rows, " rows, batch_size is 2"));
  }
  call.state = State(call.stack.shape, 2);
  call.check([&] { call.lstm.forward(call.s.x.data(), 3, -1, call.state, call.y.data()); },
             "state: it holds 2 rows, batch_size is -1");
}

TEST(null_pointers_are_refused) {
  Refused call;
  const std::string message = "x, y, h_n and c_n must not be null";
  call.check([&] { call.lstm.forward(nullptr, 3, 2, call.state, call.y.data()); }, message);
  call.check([&] { call.lstm.forward(call.s.x.data(), 3, 2, call.state, nullptr); }, message);
  call.check([&] { call.lstm.step(nullptr, call.state, call.y.data()); }, message);
  Result result;
  for (void *LstmArguments::*pointer :
       {&LstmArguments::y, &LstmArguments::h_n, &LstmArguments::c_n}) {
    LstmArguments a = arguments_for(call.s, result);
    a.*pointer = nullptr;
    call.check([&] { call.lstm.forward(a); }, message);
  }
}

TEST(impossible_sequences_leave_the_state) {
  Refused call;
  for (int64_t steps : {0, -1})
    call.check([&] { call.lstm.forward(call.s.x.data(), steps, 2, call.state, call.y.data()); },
               "time_steps must be at least 1");
  for (int64_t bad : {0, 4}) {
    const std::vector<int64_t> lengths = {3, bad};
    call.options.lengths = lengths.data();
    call.check(
        [&] { call.lstm.forward(call.s.x.data(), 3, 2, call.state, call.y.data(), call.options); },
        "lengths must be in 1..3");
  }
}

TEST(an_lstm_refuses_what_pack_refuses) {
  HeldStack stack = random_stack(shape_of(7, 9), Weights::any, 121).held();
  stack.layers[0].hh.scales[5] = -1.0f;
  CHECK_THROWS(Lstm(stack.shape, stack.views().data()), "weight_hh_l0: scales must be");
  stack.shape.hidden_size = 0;
  CHECK_THROWS(Lstm(stack.shape, stack.views().data()), "hidden_size must be in");
}

} // namespace
} // namespace lstm_fastkernels
