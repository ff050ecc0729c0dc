// Layers at once: who runs them, and how many, does not show in the results; all waiting ends.
#include "runtime/wavefront.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "runtime/thread_pool.h"
#include "stack.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

// ---- handing out ----

// How far each layer is, seen by whoever runs one; says what breaks the order.
class Progress {
public:
  Progress(int64_t layers, int64_t chunks)
      : chunks_(chunks), begun_(static_cast<size_t>(layers)), ended_(static_cast<size_t>(layers)) {}

  void run(int64_t layer, int64_t chunk) {
    const auto own = static_cast<size_t>(layer);
    wrong_ += begun_[own].fetch_add(1) != chunk || ended_[own] != chunk;
    if (layer > 0)
      wrong_ += ended_[own - 1] <= chunk;
    if (own + 1 < ended_.size())
      wrong_ += chunk - ended_[own + 1] >= Wavefront::kPlaces;
    if (chunk % 5 == layer)
      std::this_thread::yield();
    ++ended_[own];
  }
  void check() const {
    CHECK(wrong_ == 0);
    for (const std::atomic<int64_t> &ended : ended_)
      CHECK(ended == chunks_);
  }

private:
  const int64_t chunks_;
  std::vector<std::atomic<int64_t>> begun_, ended_;
  std::atomic<int> wrong_{0};
};

TEST(each_layer_takes_each_chunk_once_and_in_order) {
  for (int threads : {1, 2, 3, 5})
    for (int64_t layers : {1, 2, 3, 7})
      for (int64_t chunks : {0, 1, 2, 50}) {
        WITH(threads, " threads, ", layers, " layers, ", chunks, " chunks");
        Workspace memory;
        Wavefront wavefront(memory, layers, chunks);
        Progress progress(layers, chunks);
        const auto work = [&](int64_t first) {
          wavefront.work(first % layers,
                         [&](int64_t layer, int64_t chunk) { progress.run(layer, chunk); });
        };
        std::vector<std::thread> others;
        for (int i = 1; i < threads; ++i)
          others.emplace_back(work, i);
        work(0);
        for (std::thread &other : others)
          other.join();
        progress.check();
      }
}

// Longer than anyone spins.
TEST(waiting_for_a_slow_layer_ends) {
  Workspace memory;
  Wavefront wavefront(memory, 2, 3);
  Progress progress(2, 3);
  const auto work = [&](int64_t first) {
    wavefront.work(first, [&](int64_t layer, int64_t chunk) {
      if (chunk == layer)
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
      progress.run(layer, chunk);
    });
  };
  std::thread other(work, 1);
  work(0);
  other.join();
  progress.check();
}

TEST(who_comes_after_the_last_chunk_leaves) {
  Workspace memory;
  Wavefront wavefront(memory, 2, 3);
  Progress progress(2, 3);
  const auto run = [&](int64_t layer, int64_t chunk) { progress.run(layer, chunk); };
  wavefront.work(1, run);
  wavefront.work(0, run);
  progress.check();
}

// ---- sequences ----

Split layers_at_once(int64_t ranges, int64_t layers) {
  return {0, ranges, 1, static_cast<int>(ranges * layers), layers};
}

void check_layers_at_once(const SourceStack &stack, int64_t T, int64_t B) {
  const auto packed = stack.packed();
  const Sequence sequence = random_input(stack, T, B, 51);
  const std::vector<int64_t> lengths = random_lengths(T, B, 52);
  const Result expected = forward(packed, sequence);
  const Result shorter = forward(packed, sequence, 1, lengths);
  for_each_isa([&](std::string_view) {
    for (int64_t layers = 2; layers <= stack.shape.num_layers; ++layers) {
      const Split split = layers_at_once(std::min<int64_t>(B, layers), layers);
      WITH(layers, " layers at once, T ", T, " B ", B);
      check_same(forward(packed, sequence, split), expected);
      check_same(forward(packed, sequence, split, lengths), shorter);
    }
  });
}

TEST(forward_does_not_depend_on_layers_at_once) {
  for (int64_t layers : {2, 5})
    for (int64_t proj : {0, 9})
      for (int64_t B : {1, 2, 7, 11})
        for (int64_t T : {1, 5, 67})
          check_layers_at_once(random_stack(shape_of(7, 17, proj, layers), Weights::any, 53), T, B);
}

TEST(layers_at_once_of_every_kind_of_matrix) {
  for (const Precision &precision : kPrecisions)
    check_layers_at_once(random_stack(shape_of(40, 33, 0, 3, 1, precision), Weights::any, 54), 29,
                         3);
  for (const Precision &table : kTables)
    check_layers_at_once(
        with_tables(random_stack(shape_of(23, 33, 0, 2), Weights::any, 55), table, 56), 29, 3);
  for (uint64_t seed = 0; seed < 4; ++seed)
    check_layers_at_once(
        in_mixed_blocks(random_stack(shape_of(9, 33, 5, 2), Weights::any, 57), seed), 29, 2);
  check_layers_at_once(in_factors(random_stack(shape_of(70, 33, 21, 2), Weights::any, 58), 59), 29,
                       2);
}

TEST(layers_at_once_in_a_busy_pool_and_of_many_callers) {
  const auto packed = random_stack(shape_of(7, 33, 0, 3), Weights::any, 60).packed();
  const Sequence sequence = random_sequence(shape_of(7, 33, 0, 3), 50, 2, 61);
  const Result expected = forward(packed, sequence);
  std::vector<Result> found(6);
  const auto run = [&](int i) {
    found[static_cast<size_t>(i)] = forward(packed, sequence, layers_at_once(1 + i % 2, 3));
  };
  parallel_for(6, 3, run);
  for (const Result &result : found)
    check_same(result, expected);
  std::vector<std::thread> callers;
  for (int i = 0; i < 6; ++i)
    callers.emplace_back(run, i);
  for (std::thread &caller : callers)
    caller.join();
  for (const Result &result : found)
    check_same(result, expected);
}

// ---- when ----

std::string threads_of(const SourceStack &stack, int64_t T, int64_t B, int threads) {
  const auto packed = stack.packed();
  LstmArguments a;
  a.time_steps = T;
  a.batch_size = B;
  a.threads = threads;
  return describe(explain(packed.data(), packed.size(), a))[1];
}

// Where teams would meet too often, or rows would share too little.
TEST(layers_run_at_once_where_that_is_less_work_for_each_thread) {
  const SourceStack two = random_stack(shape_of(128, 128, 0, 2), Weights::any, 62);
  const std::string one_row = "one direction, 1 rows in 1 part", at_once = " layers at once";
  CHECK(threads_of(two, 200, 1, 2) == "threads: 2 of 2: " + one_row + ", 2" + at_once);
  CHECK(threads_of(two, 200, 2, 2) ==
        "threads: 2 of 2: one direction, 2 rows in 1 part, 2" + at_once);
  CHECK(threads_of(two, 200, 8, 2) == "threads: 2 of 2: one direction, 8 rows in 2 parts");
  const SourceStack four = random_stack(shape_of(256, 256, 0, 4), Weights::any, 63);
  CHECK(threads_of(four, 200, 1, 4) == "threads: 4 of 4: " + one_row + ", 4" + at_once);
  CHECK(threads_of(four, 200, 1, 3) == "threads: 3 of 3: " + one_row + ", 3" + at_once);
  CHECK(threads_of(four, 200, 2, 8) ==
        "threads: 8 of 8: one direction, 2 rows in 2 parts, 4" + at_once);
}

TEST(layers_do_not_run_at_once_where_that_would_lose) {
  const auto at_once = [](const SourceStack &stack, int64_t T, int threads) {
    return threads_of(stack, T, 1, threads).find("at once") != std::string::npos;
  };
  // The last layer would wait for most of the sequence.
  CHECK(!at_once(random_stack(shape_of(512, 512, 0, 2), Weights::any, 64), 8, 2));
  // Nearly all of the work is the first one's.
  CHECK(!at_once(random_stack(shape_of(2000, 128, 0, 2), Weights::any, 65), 200, 2));
  // There is one, the other direction needs all of the layer below, or one thread.
  CHECK(!at_once(random_stack(shape_of(256, 256, 0, 1), Weights::any, 66), 400, 2));
  CHECK(!at_once(random_stack(shape_of(256, 256, 0, 2, 2), Weights::any, 67), 400, 4));
  CHECK(!at_once(random_stack(shape_of(256, 256, 0, 2), Weights::any, 68), 400, 1));
}

} // namespace
} // namespace lstm_fastkernels
