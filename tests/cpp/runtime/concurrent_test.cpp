// Many threads at once: one Lstm, its copies and its file, while the instruction set changes.
#include <atomic>
#include <thread>

#include "check.h"
#include "lstm_fastkernels/file.h"
#include "stored.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

// Runs all tasks at once; check::fail must not leave a thread, so they return what is wrong.
template <class Task> void run_at_once(int threads, const Task &task) {
  std::vector<std::string> wrong(static_cast<size_t>(threads));
  std::atomic<int> missing{threads};
  std::vector<std::thread> all;
  for (int i = 0; i < threads; ++i)
    all.emplace_back([&, i] {
      for (--missing; missing > 0; std::this_thread::yield()) {
      }
      wrong[static_cast<size_t>(i)] = task(i);
    });
  for (std::thread &thread : all)
    thread.join();
  for (const std::string &what : wrong) {
    WITH(what);
    CHECK(what.empty());
  }
}

std::string difference(const Result &found, const Result &expected) {
  return check::difference(found.y, expected.y) + check::difference(found.h, expected.h) +
         check::difference(found.c, expected.c);
}

// In a few calls, each going on from the state that the one before left.
Result run_in_pieces(const Lstm &lstm, const Sequence &s, int threads, int64_t steps) {
  State state(s.shape, s.B);
  std::copy(s.h0.begin(), s.h0.end(), state.h());
  std::copy(s.c0.begin(), s.c0.end(), state.c());
  Result result;
  result.y.resize(static_cast<size_t>(s.T * s.B * s.y_columns()));
  ForwardOptions options;
  options.threads = threads;
  for (int64_t t = 0; t < s.T; t += steps)
    lstm.forward(s.x.data() + t * s.B * s.shape.input_size, std::min(steps, s.T - t), s.B, state,
                 result.y.data() + t * s.B * s.y_columns(), options);
  const int64_t rows = state.layers() * s.B;
  result.h.assign(state.h(), state.h() + rows * state.output_size());
  result.c.assign(state.c(), state.c() + rows * state.hidden_size());
  return result;
}

// One model in every kind of weights; the first is large enough for threads.
std::vector<SourceStack> stacks() {
  return {
      random_stack(shape_of(129, 129), Weights::pair_safe, 161),
      random_stack(shape_of(7, 9, 4, 2, 1, kInt16), Weights::any, 162),
      in_blocks(random_stack(shape_of(7, 9, 0, 3, 1, kFloat32), Weights::any, 163), {8, 4}, 0.5f)};
}

TEST(concurrent_calls_give_what_one_gives) {
  for (const SourceStack &stack : stacks()) {
    WITH("hidden ", stack.shape.hidden_size, " bits ", precision_name(stack.precision()));
    const HeldStack held = stack.held();
    const Lstm lstm(held.shape, held.views().data());
    // 37 million products in a call of 20 steps of the large one.
    const Sequence sequence = random_sequence(stack.shape, 20, 15, 164);
    const Result expected = forward(held.packed(), sequence);
    const std::vector<std::string_view> isas = supported_isas();
    std::atomic<bool> done{false};
    std::thread switching([&] {
      for (size_t i = 0; !done; ++i) {
        set_isa(isas[i % isas.size()]);
        std::this_thread::yield();
      }
    });
    run_at_once(6, [&](int i) {
      std::string wrong;
      for (int repeat = 0; repeat < 3; ++repeat)
        wrong += difference(run_in_pieces(lstm, sequence, 1 + i % 3, i % 2 ? 20 : 3), expected);
      return wrong;
    });
    done = true;
    switching.join();
    set_isa(isas.back());
  }
}

TEST(concurrent_loads_give_what_one_gives) {
  StoredFile parts;
  std::vector<Sequence> sequences;
  std::vector<Result> expected;
  for (const SourceStack &stack : stacks()) {
    const std::string name(1, static_cast<char>('a' + sequences.size()));
    parts.add(name, stack.held());
    sequences.push_back(random_sequence(stack.shape, 2, 2, 165));
    expected.push_back(forward(stack.packed(), sequences.back()));
  }
  const Bytes bytes = parts.bytes();
  const File shared = File::from_memory(bytes.data(), bytes.size());
  run_at_once(6, [&](int i) {
    const File own = i % 2 ? shared : File::from_memory(bytes.data(), bytes.size());
    std::string wrong;
    for (size_t k = 0; k < 3; ++k) {
      const std::string name(1, static_cast<char>('a' + k));
      wrong += difference(forward(Lstm::load(own, name), sequences[k]), expected[k]);
    }
    try {
      own.lstm("nowhere");
      wrong += "no error";
    } catch (const Error &) {
    }
    return wrong;
  });
}

TEST(concurrent_owners_of_an_lstm_let_go) {
  const HeldStack held = random_stack(shape_of(7, 9), Weights::any, 166).held();
  const Sequence sequence = random_sequence(held.shape, 2, 2, 167);
  const Result expected = forward(held.packed(), sequence);
  for (int repeat = 0; repeat < 20; ++repeat) {
    std::vector<Lstm> copies(6, Lstm(held.shape, held.views().data()));
    run_at_once(6, [&](int i) {
      const Lstm own = std::move(copies[static_cast<size_t>(i)]);
      return difference(forward(own, sequence), expected);
    });
  }
}

} // namespace
} // namespace lstm_fastkernels
