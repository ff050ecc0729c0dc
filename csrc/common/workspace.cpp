#include "common/workspace.h"

#include <algorithm>
#include <cstdint>
#include <new>
#include <utility>

namespace lstm_fastkernels {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kMostKept = size_t{32} << 20;

// `used` and `peak` count what the block had no room for, too.
struct Kept {
  std::unique_ptr<std::byte[]> block;
  size_t size = 0;
  size_t used = 0;
  size_t peak = 0;
};

thread_local Kept kept;

std::byte *aligned(std::byte *p) {
  const auto address = reinterpret_cast<uintptr_t>(p);
  return p + (kAlignment - address % kAlignment) % kAlignment;
}

} // namespace

Workspace::Workspace() : mark_(kept.used) {}

Workspace::~Workspace() {
  kept.used = mark_;
  if (mark_ != 0)
    return;
  // The outermost scope grows the kept block to what was needed, for the next call.
  const size_t peak = std::exchange(kept.peak, 0);
  if (peak <= kept.size || peak > kMostKept)
    return;
  kept.block.reset(new (std::nothrow) std::byte[peak]);
  kept.size = kept.block ? peak : 0;
}

void *Workspace::allocate_bytes(size_t bytes) {
  bytes += kAlignment;
  const size_t at = kept.used, end = at + bytes;
  std::byte *room;
  if (end <= kept.size) {
    room = kept.block.get() + at;
  } else {
    overflow_.emplace_back(new std::byte[bytes]);
    room = overflow_.back().get();
  }
  kept.used = end;
  kept.peak = std::max(kept.peak, end);
  return aligned(room);
}

} // namespace lstm_fastkernels
