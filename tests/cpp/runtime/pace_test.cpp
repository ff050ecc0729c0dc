// When calls are expected to have help at once. A thread that loses its processor takes any call
// for a late one, so the fewest of several tries count.
#include "runtime/pace.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <limits>
#include <thread>

#include "check.h"

namespace lstm_fastkernels {
namespace {

// On a thread that has made no calls yet: how many it makes alone behind `happening`, until it
// expects help again.
int fewest_calls_alone(const std::function<void()> &happening) {
  int fewest = std::numeric_limits<int>::max();
  for (int tries = 0; tries < 20; ++tries)
    std::thread([&] {
      happening();
      int count = 0;
      for (note_end_of_call(); !follows_closely(); note_end_of_call())
        ++count;
      fewest = std::min(fewest, count);
    }).join();
  return fewest;
}

TEST(calls_that_follow_at_once_expect_help) {
  bool first = true, behind_a_pause = true;
  CHECK(fewest_calls_alone([&] {
          first = follows_closely();
          note_end_of_call();
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
          behind_a_pause = follows_closely();
        }) == 0);
  CHECK(!first && !behind_a_pause);
}

TEST(calls_behind_one_that_was_held_up_are_made_alone) {
  CHECK(fewest_calls_alone(&note_sleep) == 4);
  const auto sleeps = [](int count) {
    return [=] {
      for (int i = 0; i < count; ++i)
        note_sleep();
    };
  };
  CHECK(fewest_calls_alone(sleeps(2)) == 8);
  CHECK(fewest_calls_alone(sleeps(9)) == 512 && fewest_calls_alone(sleeps(30)) == 512);
  CHECK(fewest_calls_alone([&] {
          sleeps(30)();
          for (int i = 0; i < 505; ++i)
            note_arrival(true);
          note_sleep();
        }) == 7);
}

TEST(help_that_comes_late_each_time_is_not_expected) {
  const auto arrivals = [](std::initializer_list<bool> in_time) {
    return [list = std::vector<bool>(in_time)] {
      for (const bool arrival : list)
        note_arrival(arrival);
    };
  };
  CHECK(fewest_calls_alone(arrivals({false, false, false})) == 0);
  CHECK(fewest_calls_alone(arrivals({false, false, false, true, false})) == 0);
  CHECK(fewest_calls_alone(arrivals({false, false, false, false})) == 4);
}

} // namespace
} // namespace lstm_fastkernels
