// Threads that run one sequence together. Each has its share of every matrix, which stays in its
// own cache; they meet after each step. Waiting spins for some microseconds and then parks.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace lstm_fastkernels {

// A number that threads wait for to change.
class Signal {
public:
  uint64_t value() const { return value_.load(std::memory_order_acquire); }
  void set(uint64_t value);
  // Returns the new value.
  uint64_t wait_for_change_of(uint64_t old);

private:
  std::atomic<uint64_t> value_{0};
  std::atomic<int> parked_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
};

class Team;

// One of those that take part in a piece of work.
class Member {
public:
  Member() = default; // alone
  Member(Team &team, int index, int size) : team_(&team), index_(index), size_(size) {}

  int index() const { return index_; }
  int size() const { return size_; }
  // Waits for all others to come. What they have written before can be read behind it.
  void meet() const;
  // Its share of `count` things in whole pieces: where it begins, and where the next one's does.
  int64_t first(int64_t count, int64_t piece = 1) const { return bound(count, piece, index_); }
  int64_t last(int64_t count, int64_t piece = 1) const { return bound(count, piece, index_ + 1); }

private:
  int64_t bound(int64_t count, int64_t piece, int64_t i) const {
    if (size_ == 1) // without divisions: a step of a small LSTM would notice them
      return i * count;
    const int64_t pieces = (count + piece - 1) / piece * i / size_;
    return pieces * piece < count ? pieces * piece : count;
  }

  Team *team_ = nullptr;
  int index_ = 0, size_ = 1;
};

// A leader and those who have joined it, at most `most` in all. Threads may come late or never:
// each piece of work is for those who are there. Allocates nothing.
class Team {
public:
  explicit Team(int most) : most_(most) {}

  int most() const { return most_; }
  bool is_complete() const { return joined_.load(std::memory_order_relaxed) >= most_; }

  // The leader: calls work(member) on all who are there, and returns when all have done it. It must
  // not throw. All members have to meet equally often in it. The last piece of work is nothing to
  // wait for: who comes during it finds the team closed.
  template <class Work> void run(const Work &work, bool is_last = false) {
    const int joined = joined_.load();
    const Member leader(*this, 0, joined < most_ ? joined : most_);
    if (leader.size() == 1) {
      if (is_last && most_ > 1)
        close();
      return work(leader);
    }
    work_ = &work;
    call_ = [](const void *of, const Member &member) { (*static_cast<const Work *>(of))(member); };
    begin(leader.size());
    work(leader);
    leader.meet();
  }
  // The leader, at last.
  void close() { state_.set(kClosed); }

  // Everybody else: does what there is to do until the team is closed.
  void serve();

private:
  friend class Member;
  static constexpr uint64_t kClosed = ~uint64_t{0};
  static constexpr int kSizeBits = 16;

  void begin(int size);
  void meet(int size);

  const int most_;
  std::atomic<int> joined_{1};
  Signal state_; // how many pieces of work there have been, and how many members are at this one
  const void *work_ = nullptr;
  void (*call_)(const void *, const Member &) = nullptr;
  std::atomic<int> arrived_{0};
  Signal meetings_;
};

} // namespace lstm_fastkernels
