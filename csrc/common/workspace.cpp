#include "common/workspace.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>

namespace lstm_fastkernels {

// `used` and `peak` count what the block had no room for, too.
struct KeptMemory {
  std::unique_ptr<std::byte[]> block;
  std::atomic<size_t> size{0};
  size_t used = 0;
  size_t peak = 0;
  int scopes = 0;
  std::atomic<bool> owned{true};  // by a thread
  std::atomic<bool> locked{true}; // by its outermost scope, or by who frees the block
  KeptMemory *next = nullptr;

  void lock() {
    while (locked.exchange(true, std::memory_order_acquire))
      std::this_thread::yield(); // for as long as a block takes to be freed
  }
  void unlock() { locked.store(false, std::memory_order_release); }
  void free_block() {
    size = 0;
    block.reset();
  }
};

namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kMostKept = size_t{32} << 20;

// All that there ever were: threads come and go, and a new one takes over from one that is gone.
// Without a lock, which a forked child could find locked.
std::atomic<KeptMemory *> all{nullptr};

template <class Visit> void for_each_kept(const Visit &visit) {
  for (KeptMemory *kept = all.load(); kept; kept = kept->next)
    visit(*kept);
}

class Owner {
public:
  Owner() {
    for_each_kept([&](KeptMemory &kept) {
      if (!kept_ && !kept.owned.exchange(true))
        kept_ = &kept;
    });
    if (kept_)
      return;
    kept_ = new KeptMemory;
    kept_->unlock();
    kept_->next = all.load();
    while (!all.compare_exchange_weak(kept_->next, kept_)) {
    }
  }
  ~Owner() {
    kept_->lock();
    kept_->free_block();
    kept_->unlock();
    kept_->owned = false;
  }
  KeptMemory &kept() const { return *kept_; }

private:
  KeptMemory *kept_ = nullptr;
};

KeptMemory &of_this_thread() {
  // In a forked child, who was about to free this thread's block is gone.
  static const int registered = pthread_atfork(nullptr, nullptr, [] { of_this_thread().unlock(); });
  static_cast<void>(registered);
  thread_local const Owner owner;
  return owner.kept();
}

std::byte *aligned(std::byte *p) {
  const auto address = reinterpret_cast<uintptr_t>(p);
  return p + (kAlignment - address % kAlignment) % kAlignment;
}

} // namespace

Workspace::Workspace() : kept_(of_this_thread()), mark_(kept_.used) {
  if (kept_.scopes++ == 0)
    kept_.lock();
}

Workspace::~Workspace() {
  kept_.used = mark_;
  if (--kept_.scopes != 0)
    return;
  // The outermost scope grows the kept block to what was needed, for the next call.
  const size_t peak = std::exchange(kept_.peak, 0);
  if (peak > kept_.size && peak <= kMostKept) {
    kept_.block.reset(new (std::nothrow) std::byte[peak]);
    kept_.size = kept_.block ? peak : 0;
  }
  kept_.unlock();
}

void *Workspace::allocate_bytes(size_t bytes) {
  bytes += kAlignment;
  const size_t at = kept_.used, end = at + bytes;
  std::byte *room;
  if (end <= kept_.size) {
    room = kept_.block.get() + at;
  } else {
    std::unique_ptr<std::byte[]> block(new std::byte[bytes]);
    room = block.get();
    overflow_.push_back(std::move(block));
  }
  kept_.used = end;
  kept_.peak = std::max(kept_.peak, end);
  return aligned(room);
}

void release_workspaces() {
  for_each_kept([](KeptMemory &kept) {
    if (kept.locked.exchange(true, std::memory_order_acquire))
      return;
    kept.free_block();
    kept.unlock();
  });
}

size_t kept_workspace_bytes() {
  size_t bytes = 0;
  for_each_kept([&](const KeptMemory &kept) { bytes += kept.size; });
  return bytes;
}

} // namespace lstm_fastkernels
