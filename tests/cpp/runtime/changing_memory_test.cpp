// A caller's memory that another thread writes during a call: what is checked is what is used.
// These are races on purpose, of the test with the library, which ThreadSanitizer must not see.
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "check.h"
#include "stack.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

// A number that another thread gives these values in turn, again and again.
template <class T> class Changing {
public:
  Changing(T *number, const std::vector<T> &values)
      : thread_([=] {
          volatile T *const to = number;
          for (size_t i = 0; !done_; ++i)
            *to = values[i % values.size()];
        }) {}
  ~Changing() {
    done_ = true;
    thread_.join();
  }
  Changing(const Changing &) = delete;

private:
  std::atomic<bool> done_{false};
  std::thread thread_;
};

// Long enough for the threads to meet between a check and a use, on busy machines, too.
template <class Task> void for_a_while(const Task &task) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(400);
  do
    for (int i = 0; i < 10; ++i)
      task();
  while (std::chrono::steady_clock::now() < end);
}

TEST(lengths_are_read_once) {
  const SourceStack stack = random_stack(shape_of(1, 2, 0, 1, 2), Weights::any, 31);
  const HeldStack held = stack.held();
  const Lstm lstm(held.shape, held.views().data());
  const Sequence sequence = random_sequence(stack.shape, 4, 700, 32);
  std::vector<int64_t> lengths = random_lengths(4, 700, 33);
  int64_t &length = lengths[3];
  length = 1;
  const Result one = forward(lstm, sequence, 1, lengths);
  length = 3;
  const Result three = forward(lstm, sequence, 1, lengths);
  const Changing<int64_t> changing(&length, {1, 3, 3, 1, -300});
  int runs = 0;
  for_a_while([&] {
    Result result;
    LstmArguments a = arguments_for(sequence, result);
    a.lengths = lengths.data();
    try {
      lstm.forward(a);
    } catch (const Error &) {
      return;
    }
    ++runs;
    if (check::difference(result.y, one.y).empty())
      check_same(result, one);
    else
      check_same(result, three);
  });
  CHECK(runs > 0);
}

TEST(indices_are_read_once) {
  const SourceStack stack =
      in_blocks(random_stack(shape_of(129, 65), Weights::any, 33), {8, 4}, 0.5f);
  HeldStack held = stack.held();
  const std::vector<CellWeights> cells = held.views();
  const std::vector<uint8_t> expected = held.packed();
  std::vector<uint8_t> packed(expected.size());
  const auto pack = [&] {
    try {
      const PackPlan plan(held.shape, cells.data());
      CHECK(plan.bytes() == packed.size());
      plan.write(packed.data(), packed.size());
    } catch (const Error &) {
      return;
    }
    CHECK(packed == expected);
  };
  std::vector<int32_t> &crow = held.layers[0].ih.crow, &col = held.layers[0].ih.col;
  const int32_t first = col[0], second = crow[1];
  {
    const Changing<int32_t> changing(&col[0], {first, -100});
    for_a_while(pack);
  }
  col[0] = first;
  const Changing<int32_t> changing(&crow[1], {second, -100000});
  for_a_while(pack);
}

} // namespace
} // namespace lstm_fastkernels
