// Pieces: each is done once, whoever comes to it, and a member that is held up leaves its own.
#include "runtime/pieces.h"

#include <atomic>
#include <thread>
#include <vector>

#include "check.h"
#include "support.h"
#include "team_threads.h"

namespace lstm_fastkernels {
namespace {

// Runs work(member) on all members of a team of so many, as long as there are pieces of work.
template <class Work> void run_on_team(int members, int turns, const Work &work) {
  Team team(members);
  const Threads others(team, members - 1);
  wait_until_complete(team);
  for (int turn = 1; turn <= turns; ++turn)
    team.run([&](const Member &member) { work(turn, member); });
}

TEST(each_piece_is_done_once_in_each_turn) {
  constexpr int kTurns = 50;
  for (int members : {1, 2, 3, 5})
    for (int64_t count : {0, 1, 2, 5, 64}) {
      WITH(members, " members, ", count, " pieces");
      Workspace memory;
      const Pieces pieces(memory, members);
      std::vector<std::atomic<int>> done(static_cast<size_t>(count));
      std::atomic<int> wrong{0};
      run_on_team(members, kTurns, [&](int turn, const Member &member) {
        if (turn % 7 == member.index())
          std::this_thread::yield();
        pieces.for_each(turn * 3, count, turn % 2 == 0, member, [&](int64_t i) {
          wrong += done[static_cast<size_t>(i)].fetch_add(1) != turn - 1;
        });
      });
      CHECK(wrong == 0);
      for (const std::atomic<int> &times : done)
        CHECK(times == kTurns);
    }
}

TEST(members_begin_with_their_own_pieces) {
  constexpr int64_t kCount = 7;
  constexpr int kMembers = 3;
  const std::vector<int64_t> expected[] = {{0, 2, 4}, {1, 3, 6}}; // forwards and backwards
  for (const bool backwards : {false, true}) {
    std::vector<int64_t> first(kMembers);
    Workspace memory;
    const Pieces pieces(memory, kMembers);
    std::atomic<int> begun{0};
    run_on_team(kMembers, 1, [&](int turn, const Member &member) {
      bool is_first = true;
      pieces.for_each(turn, kCount, backwards, member, [&](int64_t i) {
        if (!is_first)
          return;
        is_first = false;
        first[static_cast<size_t>(member.index())] = i;
        ++begun;
        while (begun < kMembers) // nobody has taken another one's by then
          std::this_thread::yield();
      });
    });
    CHECK(first == expected[backwards]);
  }
}

TEST(one_member_goes_both_ways) {
  Workspace memory;
  const Pieces pieces(memory, 1);
  for (const bool backwards : {false, true}) {
    std::vector<int64_t> order;
    pieces.for_each(1, 4, backwards, Member(), [&](int64_t i) { order.push_back(i); });
    CHECK(order ==
          (backwards ? std::vector<int64_t>{3, 2, 1, 0} : std::vector<int64_t>{0, 1, 2, 3}));
  }
}

TEST(a_member_that_is_held_up_leaves_its_pieces_to_others) {
  constexpr int64_t kCount = 20;
  Workspace memory;
  const Pieces pieces(memory, 2);
  std::atomic<int64_t> done{0}, of_other{0};
  run_on_team(2, 1, [&](int turn, const Member &member) {
    pieces.for_each(turn, kCount, false, member, [&](int64_t) {
      ++done;
      if (member.index() == 0)
        return;
      ++of_other;
      while (done < kCount)
        std::this_thread::yield();
    });
  });
  CHECK(done == kCount);
  CHECK(of_other <= 1);
}

TEST(a_late_member_finds_pieces_of_its_own_turn_alone) {
  Workspace memory;
  const Pieces pieces(memory, 2);
  Team team(2);
  const Member first(team, 0, 2), second(team, 1, 2);
  const auto count = [&](int64_t turn, const Member &member) {
    int64_t found = 0;
    pieces.for_each(turn, 9, false, member, [&](int64_t) { ++found; });
    return found;
  };
  CHECK(count(1, first) == 9);
  CHECK(count(1, second) == 0);
  CHECK(count(2, second) == 9); // also those of who never comes
  CHECK(count(5, first) == 9);
}

} // namespace
} // namespace lstm_fastkernels
