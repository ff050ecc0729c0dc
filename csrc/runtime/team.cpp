#include "runtime/team.h"

#include "runtime/pace.h"
#include "runtime/spin.h"

namespace lstm_fastkernels {

void Signal::set(uint64_t value) {
  // Before parked_ is read: one of both sides sees the other. A store would do by the language's
  // rules, but QEMU, as AArch64, lets the load behind it come first.
  value_.exchange(value);
  if (parked_.load() > 0) {
    const std::lock_guard<std::mutex> lock(mutex_);
    changed_.notify_all();
  }
}

uint64_t Signal::wait_for_change_of(uint64_t old) {
  const auto has_changed = [&] { return value() != old; };
  if (spin_until(has_changed))
    return value();
  const auto idle_since = std::chrono::steady_clock::now();
  if (!yield_until(has_changed)) {
    std::unique_lock<std::mutex> lock(mutex_);
    ++parked_;
    changed_.wait(lock, [&] { return value_.load() != old; });
    --parked_;
  }
  note_idle(idle_since);
  return value();
}

void Member::meet() const {
  if (size_ > 1)
    team_->meet(size_);
}

void Team::begin(int size) {
  const uint64_t pieces = (state_.value() >> kSizeBits) + 1;
  state_.set(pieces << kSizeBits | static_cast<uint64_t>(size));
}

void Team::meet(int size) {
  const uint64_t meeting = meetings_.value();
  if (arrived_.fetch_add(1) + 1 < size) {
    meetings_.wait_for_change_of(meeting);
    return;
  }
  arrived_.store(0, std::memory_order_relaxed);
  meetings_.set(meeting + 1);
}

void Team::serve() {
  uint64_t state = state_.value(); // before it joins: it misses nothing that counts on it
  const int index = joined_.fetch_add(1);
  while (state != kClosed) {
    state = state_.wait_for_change_of(state);
    const int size = static_cast<int>(state & ((uint64_t{1} << kSizeBits) - 1));
    if (state == kClosed || index >= size)
      continue;
    const Member member(*this, index, size);
    call_(work_, member);
    member.meet();
  }
}

} // namespace lstm_fastkernels
