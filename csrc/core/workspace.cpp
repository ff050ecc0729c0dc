#include "workspace.h"

#include <algorithm>

namespace lstm_fastkernels {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kMostKept = size_t{8} << 20;

struct Kept {
  std::unique_ptr<std::byte[]> block;
  size_t size = 0;
  size_t used = 0;
};

thread_local Kept kept;

std::byte *aligned(std::byte *p) {
  const auto address = reinterpret_cast<uintptr_t>(p);
  return p + (kAlignment - address % kAlignment) % kAlignment;
}

} // namespace

Workspace::Workspace() : mark_(kept.used) {}

Workspace::~Workspace() {
  const size_t wanted = kept.used + overflow_bytes_;
  kept.used = mark_;
  if (overflow_.empty() || mark_ != 0 || wanted > kMostKept)
    return;
  // The outermost scope grows the kept block to what it needed, for the next call.
  kept.block.reset(new (std::nothrow) std::byte[wanted]);
  kept.size = kept.block ? wanted : 0;
}

void *Workspace::take_bytes(size_t bytes) {
  bytes += kAlignment;
  if (kept.used + bytes <= kept.size) {
    std::byte *p = kept.block.get() + kept.used;
    kept.used += bytes;
    return aligned(p);
  }
  overflow_.emplace_back(new std::byte[bytes]);
  overflow_bytes_ += bytes;
  return aligned(overflow_.back().get());
}

} // namespace lstm_fastkernels
