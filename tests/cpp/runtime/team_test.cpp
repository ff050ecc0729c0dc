// Teams: who is in one does not show in the results, whenever they come; waiting ends.
#include "runtime/team.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "check.h"
#include "runtime/thread_pool.h"
#include "stack.h"
#include "support.h"
#include "team_threads.h"

namespace lstm_fastkernels {
namespace {

using std::chrono::milliseconds;

// ---- sharing ----

TEST(shares_are_whole_and_disjoint) {
  for (int64_t count : {0, 1, 2, 7, 8, 9, 31, 151})
    for (int64_t piece : {1, 3, 16})
      for (int size = 1; size <= 5; ++size) {
        WITH("count ", count, " piece ", piece, " size ", size);
        Team team(size);
        int64_t end = 0;
        for (int i = 0; i < size; ++i) {
          const Member member(team, i, size);
          CHECK(member.first(count, piece) == end);
          end = member.last(count, piece);
          CHECK(end == count || end % piece == 0);
        }
        CHECK(end == count);
      }
}

// ---- pieces of work ----

TEST(all_who_are_there_do_each_piece_once) {
  for (int others : {0, 1, 2, 4}) {
    WITH("others ", others);
    Team team(others + 1);
    const Threads threads(team, others);
    wait_until_complete(team);
    std::vector<std::atomic<int>> done(static_cast<size_t>(others + 1));
    for (int piece = 1; piece <= 200; ++piece) {
      team.run([&](const Member &member) {
        CHECK(member.size() == others + 1);
        ++done[static_cast<size_t>(member.index())];
      });
      for (const std::atomic<int> &times : done)
        CHECK(times == piece);
    }
  }
}

// A step that reads what all others wrote in the step before.
TEST(what_was_written_before_a_meeting_is_read_behind_it) {
  for (int size : {2, 3, 5}) {
    WITH("size ", size);
    constexpr int kSteps = 2000;
    std::vector<std::vector<int>> written(2, std::vector<int>(static_cast<size_t>(size), 0));
    std::atomic<int> wrong{0};
    Team team(size);
    const Threads threads(team, size - 1);
    wait_until_complete(team);
    team.run([&](const Member &member) {
      for (int step = 0; step < kSteps; ++step) {
        for (const int value : written[static_cast<size_t>(step % 2)])
          wrong += value != step;
        written[static_cast<size_t>((step + 1) % 2)][static_cast<size_t>(member.index())] =
            step + 1;
        member.meet();
      }
    });
    CHECK(wrong == 0);
  }
}

TEST(a_leader_does_not_wait_for_those_who_have_not_come) {
  Team team(3);
  int pieces = 0;
  team.run([&](const Member &member) { pieces += member.size(); });
  CHECK(pieces == 1 && !team.is_complete());
  const Threads threads(team, 1); // the third never comes
  while (pieces == 1)
    team.run([&](const Member &member) {
      if (member.size() == 2 && member.index() == 0)
        pieces += 2;
    });
  CHECK(pieces == 3);
}

TEST(who_comes_after_the_end_leaves) {
  Team team(2);
  team.close();
  team.serve();
  CHECK(team.is_complete());
}

// Longer than anyone spins.
TEST(waiting_threads_park_and_wake) {
  Team team(2);
  const Threads threads(team, 1);
  wait_until_complete(team);
  std::atomic<int> met{0};
  for (int slow : {0, 1}) {
    std::this_thread::sleep_for(milliseconds(20));
    team.run([&](const Member &member) {
      if (member.index() == slow)
        std::this_thread::sleep_for(milliseconds(20));
      member.meet();
      ++met;
    });
  }
  CHECK(met == 4);
}

// ---- sequences ----

Result run_team(const std::vector<uint8_t> &packed, const Sequence &sequence, int64_t ranges,
                int64_t members, const std::vector<int64_t> &lengths = {}) {
  const int64_t threads = ranges * members * sequence.shape.num_directions;
  return forward(packed, sequence, Split{0, ranges, members, static_cast<int>(threads)}, lengths);
}

void check_teams(const SourceStack &stack, int64_t T, int64_t B) {
  const auto packed = stack.packed();
  const Sequence sequence = random_input(stack, T, B, 31);
  const std::vector<int64_t> lengths = random_lengths(T, B, 32);
  const Result expected = forward(packed, sequence);
  const Result shorter = forward(packed, sequence, 1, lengths);
  for_each_isa([&](std::string_view) {
    for (const auto &[members, most] : {std::pair{5, 1}, {3, 2}, {2, 7}}) {
      const int64_t ranges = std::min<int64_t>(B, most);
      WITH("members ", members, " ranges ", ranges, " T ", T, " B ", B);
      check_same(run_team(packed, sequence, ranges, members), expected);
      check_same(run_team(packed, sequence, ranges, members, lengths), shorter);
    }
  });
}

TEST(forward_does_not_depend_on_teams) {
  for (int64_t directions : {1, 2})
    for (int64_t proj : {0, 9})
      for (int64_t B : {1, 2, 7, 19}) {
        WITH("directions ", directions, " proj ", proj);
        check_teams(random_stack(shape_of(7, 33, proj, 2, directions), Weights::any, 33), 29, B);
      }
}

// Fewer tiles than members, and fewer rows than members quantize.
TEST(members_without_a_share_take_part) {
  for (int64_t hidden : {1, 8, 17})
    check_teams(random_stack(shape_of(3, hidden, 0, 3), Weights::any, 34), 9, 1);
}

TEST(teams_run_every_kind_of_matrix) {
  for (const Precision &precision : kPrecisions) {
    const SourceStack dense = random_stack(shape_of(40, 151, 0, 1, 1, precision), Weights::any, 35);
    for (int64_t B : {1, 3, 13})
      check_teams(dense, 5, B);
  }
  for (const Precision &table : kTables)
    for (int64_t B : {3, 13})
      check_teams(with_tables(random_stack(shape_of(23, 151, 0, 2), Weights::any, 35), table, 36),
                  5, B);
  // More than one window of a block-sparse matrix, whole windows of which are shared out.
  for (const Precision &precision : kBlockPrecisions)
    for (int64_t B : {1, 13})
      check_teams(in_blocks(random_stack(shape_of(9, 151, 0, 2, 1, precision), Weights::any, 36),
                            {8, 4}, 0.5f),
                  5, B);
  // One matrix dense and the other not: whole windows of both are.
  for (uint64_t seed = 0; seed < 4; ++seed)
    for (int64_t B : {2, 13})
      check_teams(in_mixed_blocks(random_stack(shape_of(9, 151, 5, 2), Weights::any, 37), seed), 5,
                  B);
}

// Of which both factors are shared out.
TEST(teams_run_low_rank_matrices) {
  for (const Precision &precision : kPrecisions)
    for (int64_t directions : {1, 2})
      for (int64_t B : {1, 13}) {
        WITH("precision ", precision_name(precision), " directions ", directions);
        const TypedShape shape = shape_of(70, 151, 67, 2, directions, precision);
        check_teams(in_factors(random_stack(shape, Weights::any, 43), 44), 5, B);
      }
}

// Chunks while a member is still to come are short: all of them give the same.
TEST(long_sequences_do_not_depend_on_teams) {
  check_teams(random_stack(shape_of(5, 33), Weights::any, 38), 700, 1);
}

// Of weights so large that a few rows of them are shared out by pieces, as members come to them.
TEST(members_take_pieces_of_large_matrices) {
  const SourceStack stack = random_stack(shape_of(5, 600), Weights::any, 48);
  const auto packed = stack.packed();
  const Sequence sequence = random_input(stack, 6, 7, 49);
  const std::vector<int64_t> lengths = random_lengths(6, 7, 50);
  const Result expected = forward(packed, sequence);
  const Result shorter = forward(packed, sequence, 1, lengths);
  for_each_isa([&](std::string_view) {
    for (int i = 0; i < 3; ++i) {
      check_same(run_team(packed, sequence, 1, 2), expected);
      check_same(run_team(packed, sequence, 1, 2, lengths), shorter);
    }
  });
}

TEST(a_team_in_a_busy_pool_is_its_leader) {
  const auto packed = random_stack(shape_of(7, 33, 0, 2), Weights::any, 39).packed();
  const Sequence sequence = random_sequence(shape_of(7, 33, 0, 2), 20, 1, 40);
  const Result expected = forward(packed, sequence);
  std::vector<Result> found(6);
  parallel_for(6, 3,
               [&](int i) { found[static_cast<size_t>(i)] = run_team(packed, sequence, 1, 2); });
  for (const Result &result : found)
    check_same(result, expected);
}

TEST(many_callers_have_teams_at_once) {
  const auto packed = random_stack(shape_of(7, 33), Weights::any, 41).packed();
  const Sequence sequence = random_sequence(shape_of(7, 33), 50, 1, 42);
  const Result expected = forward(packed, sequence);
  std::vector<std::thread> callers;
  std::vector<Result> found(4);
  for (Result &result : found)
    callers.emplace_back([&] {
      for (int i = 0; i < 10; ++i)
        result = run_team(packed, sequence, 1, 2);
    });
  for (std::thread &caller : callers)
    caller.join();
  for (const Result &result : found)
    check_same(result, expected);
}

// ---- steps ----

Split split_of_a_step(const SourceStack &stack, bool follows_closely) {
  const auto packed = stack.packed();
  LstmArguments a;
  a.time_steps = a.batch_size = 1;
  a.threads = 2;
  return split_of(
      PackedStack(packed.data(), packed.size()), a,
      follows_closely ? [] { return true; } : [] { return false; });
}

TEST(steps_are_shared_where_others_are_awake) {
  const SourceStack small = random_stack(shape_of(128, 256), Weights::any, 45),
                    large = random_stack(shape_of(256, 512), Weights::any, 46);
  CHECK(split_of_a_step(large, true).members == 2);
  CHECK(split_of_a_step(large, false).threads == 1);
  CHECK(split_of_a_step(small, true).threads == 1);
}

TEST(steps_that_follow_closely_have_the_bits_of_one_thread) {
  const SourceStack stack = random_stack(shape_of(256, 512), Weights::any, 47);
  const auto packed = stack.packed();
  const HeldStack held = stack.held();
  const Lstm lstm(held.shape, held.views().data());
  const Sequence s = random_sequence(stack.shape, 60, 1, 48);
  const Result expected = forward(packed, s);
  State state(stack.shape, 1);
  std::copy(s.h0.begin(), s.h0.end(), state.h());
  std::copy(s.c0.begin(), s.c0.end(), state.c());
  std::vector<float> y(expected.y.size());
  ForwardOptions options;
  options.threads = 2;
  for (int64_t t = 0; t < s.T; ++t)
    lstm.forward(s.x.data() + t * 256, 1, 1, state, y.data() + t * 512, options);
  CHECK(y == expected.y);
}

} // namespace
} // namespace lstm_fastkernels
