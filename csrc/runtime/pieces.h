// Work in pieces that the members of a team share out while they do it.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <new>
#include <type_traits>

#include "common/workspace.h"
#include "runtime/team.h"

namespace lstm_fastkernels {

// Each member begins with pieces of its own, the same ones in each turn, so that its cache holds
// what they read. Then it takes those that others have not begun: one that is slow, or held up,
// leaves them to the rest.
class Pieces {
public:
  Pieces(Workspace &memory, int most_members) {
    static_assert(std::is_trivially_destructible_v<Taken>);
    if (most_members == 1)
      return; // who is alone takes none from anybody
    taken_ = memory.allocate<Taken>(most_members);
    std::for_each_n(taken_, most_members, [](Taken &taken) { new (&taken) Taken; });
  }

  // Calls visit(i) for each i in 0 .. count - 1, on one of the members, each of which calls this:
  // forwards or backwards, each its own ones and those of others. They meet between two turns,
  // whose numbers are positive and differ.
  template <class Visit>
  void for_each(int64_t turn, int64_t count, bool backwards, const Member &member,
                const Visit &visit) const {
    const int members = member.size();
    if (members == 1) {
      for (int64_t i = 0; i < count; ++i)
        visit(backwards ? count - 1 - i : i);
      return;
    }
    for (int i = 0; i < members; ++i) {
      const int whose = (member.index() + i) % members;
      const int64_t begin = count * whose / members, end = count * (whose + 1) / members;
      for (int64_t n; (n = take(taken_[whose].next, turn, end - begin)) >= 0;)
        visit(backwards ? end - 1 - n : begin + n);
    }
  }

private:
  // How many of a member's pieces have been taken, in the turn that the upper half names: a number
  // of a turn before stands for none.
  struct alignas(64) Taken {
    std::atomic<uint64_t> next{0};
  };

  // One of so many; or -1.
  static int64_t take(std::atomic<uint64_t> &next, int64_t turn, int64_t count) {
    const uint64_t none = static_cast<uint64_t>(turn) << 32,
                   all = none + static_cast<uint64_t>(count);
    uint64_t seen = next.load(std::memory_order_relaxed), from;
    do {
      from = seen >> 32 == none >> 32 ? seen : none;
      if (from >= all)
        return -1;
    } while (!next.compare_exchange_weak(seen, from + 1, std::memory_order_relaxed));
    return static_cast<int64_t>(from - none);
  }

  Taken *taken_ = nullptr;
};

} // namespace lstm_fastkernels
