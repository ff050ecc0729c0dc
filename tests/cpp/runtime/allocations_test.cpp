// A streaming step allocates nothing, and an allocation that fails is an exception. An executable
// of its own: the others keep the sanitizer's operators.
#include "allocations.h"

#include <filesystem>
#include <iterator>
#include <memory>
#include <new>
#include <thread>

#include "check.h"
#include "lstm_fastkernels/streams.h"
#include "runtime/stack.h"
#include "stack.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

TEST(allocations_are_counted) {
  constexpr std::align_val_t kLine{64};
  CHECK(allocations_of([] {}) == 0);
  CHECK(allocations_of([] { ::operator delete(::operator new(9)); }) == 1);
  CHECK(allocations_of([] { ::operator delete[](::operator new[](9)); }) == 1);
  CHECK(allocations_of([&] { ::operator delete(::operator new(9, kLine), kLine); }) == 1);
  CHECK(allocations_of([] { ::operator delete(::operator new(9, std::nothrow)); }) == 1);
  CHECK(allocations_of([] { std::make_unique<std::byte[]>(9); }) <= 1); // may be left out
  CHECK(allocations_of([] { std::vector<float>(2).reserve(100); }) == 2);
}

TEST(allocations_of_other_threads_are_counted) {
  int64_t inside = 0;
  const int64_t all = allocations_of([&] {
    std::thread other(
        [&] { inside = allocations_of([] { ::operator delete(::operator new(9)); }); });
    other.join();
  });
  CHECK(inside == 1 && all > inside);
}

// Steps of one size, y going nowhere.
class Stream {
public:
  Stream(const SourceStack &stack, int64_t batch_size, int threads = 1)
      : held_(stack.held()), lstm_(held_.shape, held_.views().data()),
        state_(held_.shape, batch_size), sequence_(random_ids(held_.shape, 1, batch_size, 151)),
        y_(static_cast<size_t>(batch_size * sequence_.y_columns())) {
    options_.threads = threads;
  }

  int64_t allocations_of_a_step() {
    return allocations_of([&] {
      if (lstm_.takes_ids())
        lstm_.step_ids(sequence_.ids.data(), state_, y_.data());
      else if (options_.threads == 1)
        lstm_.step(sequence_.x.data(), state_, y_.data());
      else
        lstm_.forward(sequence_.x.data(), 1, state_.batch_size(), state_, y_.data(), options_);
    });
  }

private:
  HeldStack held_;
  Lstm lstm_;
  State state_;
  Sequence sequence_;
  std::vector<float> y_;
  ForwardOptions options_;
};

// The first step on a thread of its own, whose memory is its own, too, and then others.
void check_steps(const SourceStack &stack, int64_t batch_size) {
  WITH("batch ", batch_size);
  for_each_isa([&](std::string_view) {
    Stream stream(stack, batch_size);
    int64_t first = 0, later = 0;
    std::thread([&] {
      first = stream.allocations_of_a_step();
      for (int i = 0; i < 5; ++i)
        later += stream.allocations_of_a_step();
    }).join();
    CHECK(first > 0 && later == 0);
  });
}

TEST(steps_allocate_nothing) {
  for (Precision precision : kPrecisions)
    for (const TypedShape &shape :
         {shape_of(7, 33, 0, 1, 1, precision), shape_of(7, 33, 0, 3, 1, precision),
          shape_of(7, 33, 0, 2, 2, precision), shape_of(7, 33, 9, 2, 1, precision),
          shape_of(7, 33, 9, 2, 2, precision), shape_of(151, 9, 0, 2, 2, precision)}) {
      WITH("precision ", precision_name(precision), " input ", shape.input_size, " layers ",
           shape.num_layers, " directions ", shape.num_directions, " proj ", shape.proj_size);
      const SourceStack stack = random_stack(shape, Weights::any, 152);
      for (int64_t batch_size : {1, 33}) {
        check_steps(stack, batch_size);
        check_steps(in_blocks(stack, {8, 4}, 0.5f), batch_size);
        check_steps(with_tables(stack, kHalfTable, 155), batch_size);
      }
    }
}

TEST(smaller_steps_allocate_nothing_after_larger_ones) {
  std::thread([] {
    const SourceStack stack = random_stack(shape_of(7, 33), Weights::any, 153);
    Stream large(stack, 9), small(stack, 2);
    CHECK(large.allocations_of_a_step() > 0);
    for (int i = 0; i < 3; ++i)
      CHECK(small.allocations_of_a_step() + large.allocations_of_a_step() == 0);
  }).join();
}

// Of all or of some, and what is done between ticks.
TEST(ticks_allocate_nothing) {
  std::thread([] {
    const HeldStack held = random_stack(shape_of(7, 33, 9, 2), Weights::any, 155).held();
    StreamBatch batch(Lstm(held.shape, held.views().data()), 70);
    std::vector<int64_t> streams;
    while (batch.size() < batch.capacity())
      streams.push_back(batch.join());
    const Sequence s = random_sequence(held.shape, 1, 70, 156);
    std::vector<float> y(static_cast<size_t>(70 * s.y_columns()));
    const auto tick = [&](int64_t count) {
      return allocations_of([&] { batch.tick(streams.data(), count, s.x.data(), y.data()); });
    };
    CHECK(tick(70) > 0);
    for (int64_t count : {70, 3, 0, 69, 70})
      CHECK(tick(count) == 0);
    const int64_t between = allocations_of([&] {
      batch.reorder(streams.data(), streams.data() + 5, 60);
      batch.leave(streams[9]);
      streams[9] = batch.fork(streams[8]);
      batch.leave(streams[7]);
      streams[7] = batch.join();
      batch.reset(streams[6]);
    });
    CHECK(between == 0 && tick(70) == 0);
  }).join();
}

int64_t threads_of_this_process() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/task"), {});
}

// 69 million products a step. Which thread takes which half of the rows is not settled: each may
// see both halves for the first time, and that is all.
TEST(steps_on_two_threads_allocate_nothing) {
  for (int64_t directions : {1, 2}) {
    WITH("directions ", directions);
    Stream stream(random_stack(shape_of(511, 513, 0, 1, directions), Weights::any, 154), 33, 2);
    int allocating = 0;
    for (int i = 0; i < 30; ++i)
      allocating += stream.allocations_of_a_step() > 0;
    CHECK(threads_of_this_process() > 1);
    CHECK(allocating <= 4);
  }
}

// Each allocation of a call, on threads that keep no memory yet.
void check_failures(const SourceStack &stack, int64_t batch_size, int members, int layers = 1) {
  WITH("batch ", batch_size, " members ", members, " layers at once ", layers);
  const auto packed = stack.packed();
  const PackedStack parsed(packed.data(), packed.size());
  const Sequence s = random_sequence(stack.shape, 3, batch_size, 158);
  const int threads = members * layers * static_cast<int>(stack.shape.num_directions);
  const Split split{0, 1, members, threads, layers};
  const Result expected = forward(packed, s);
  for_each_isa([&](std::string_view) {
    int failures = 0;
    int64_t n = 0, made = 0;
    do {
      ++n;
      WITH("allocation ", n);
      Result result;
      bool failed = false;
      release_memory();
      std::thread([&] {
        const LstmArguments a = arguments_for(s, result);
        made = allocations_of([&] {
          fail_allocation(n);
          try {
            run_stack(parsed, a, &split);
          } catch (const std::bad_alloc &) {
            failed = true;
          }
          fail_allocation(0);
        });
      }).join();
      failures += failed;
      if (!failed)
        check_same(result, expected);
    } while (made >= n);
    CHECK(failures > 5);
  });
}

TEST(allocations_that_fail_are_thrown) {
  for (int64_t batch_size : {1, 9})
    for (int members : {1, 2}) {
      check_failures(random_stack(shape_of(7, 33, 9, 2, 2), Weights::any, 159), batch_size,
                     members);
      check_failures(in_blocks(random_stack(shape_of(40, 151), Weights::any, 160), {8, 4}, 0.3f),
                     batch_size, members);
    }
  check_failures(random_stack(shape_of(7, 33, 9, 3), Weights::any, 161), 2, 1, 3);
}

} // namespace
} // namespace lstm_fastkernels
