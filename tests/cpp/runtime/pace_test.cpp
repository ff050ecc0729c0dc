// When calls are expected to have help at once. A thread that loses its processor takes any call
// for a late one, so the fewest of several tries count.
#include "runtime/pace.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <limits>
#include <thread>
#include <utility>
#include <vector>

#include "check.h"

namespace lstm_fastkernels {
namespace {

using Clock = std::chrono::steady_clock;

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

// How many of several calls expect help, each so long, or longer, behind one that took so long.
constexpr int kTries = 20;
int expecting_help(std::chrono::microseconds taken, std::chrono::microseconds pause) {
  int expected = 0;
  for (int tries = 0; tries < kTries; ++tries)
    std::thread([&] {
      follows_closely();
      std::this_thread::sleep_for(taken);
      note_end_of_call();
      std::this_thread::sleep_for(pause);
      expected += follows_closely();
    }).join();
  return expected;
}

TEST(behind_a_long_call_the_next_may_come_later) {
  using std::chrono::microseconds;
  CHECK(expecting_help(microseconds(16000), microseconds(200)) > 0);
  CHECK(expecting_help(microseconds(16), microseconds(400)) < kTries);
  CHECK(expecting_help(microseconds(40000), microseconds(2000)) == 0);
}

TEST(what_others_have_helped_with_is_followed_as_a_call_is) {
  bool followed = false;
  for (int tries = 0; tries < 20; ++tries) {
    follows_closely();
    note_end_of_call();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    note_end_of_job(Clock::now());
    followed |= follows_soon(Clock::now());
  }
  CHECK(followed);
}

// Of calls with help: late, held up for all of it, or as they should be.
void be_late() { note_arrival(false); }
void be_held_up() {
  note_arrival(true);
  note_idle(Clock::now() - std::chrono::seconds(1));
  note_end_of_call();
}
void go_well() {
  note_arrival(true);
  note_end_of_call();
}

std::function<void()> calls(std::vector<std::pair<int, void (*)()>> kinds) {
  return [=] {
    follows_closely(); // from here on, a second is longer than the call
    for (const auto &[count, call] : kinds)
      for (int i = 0; i < count; ++i)
        call();
  };
}

TEST(calls_that_cost_too_much_are_followed_by_some_alone) {
  CHECK(fewest_calls_alone(calls({{2, be_held_up}})) == 4);
  CHECK(fewest_calls_alone(calls({{8, be_late}})) == 4);
  CHECK(fewest_calls_alone(calls({{4, be_late}, {1, be_held_up}})) == 4);
  CHECK(fewest_calls_alone(calls({{4, be_held_up}})) == 8);
  CHECK(fewest_calls_alone(calls({{16, be_held_up}})) == 512);
  CHECK(fewest_calls_alone(calls({{40, be_held_up}})) == 512);
}

// To wake the others, and to fill their caches.
TEST(the_first_calls_of_several_may_cost_something) {
  CHECK(fewest_calls_alone(calls({{3, be_late}, {1, be_held_up}})) == 0);
}

TEST(calls_that_go_well_make_up_for_others) {
  CHECK(fewest_calls_alone(calls({{7, be_late}, {5, go_well}, {1, be_held_up}})) == 0);
  CHECK(fewest_calls_alone(calls({{7, be_late}, {2, go_well}, {1, be_held_up}})) == 4);
  CHECK(fewest_calls_alone(calls({{16, be_held_up}, {505, go_well}, {2, be_held_up}})) == 7);
}

// Halves of a large layer that are not equal.
TEST(short_waits_cost_nothing) {
  CHECK(fewest_calls_alone([] {
          for (int i = 0; i < 8; ++i) {
            follows_closely();
            note_arrival(true);
            std::this_thread::sleep_for(std::chrono::milliseconds(4));
            note_idle(Clock::now() - std::chrono::milliseconds(1));
            note_end_of_call();
          }
        }) == 0);
}

} // namespace
} // namespace lstm_fastkernels
