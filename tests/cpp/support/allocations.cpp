#include "allocations.h"

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

std::atomic<int64_t> count{0}, failing{0};

void *allocate(size_t bytes, std::align_val_t alignment) noexcept {
  if (++count == failing)
    return nullptr;
  const auto unit = static_cast<size_t>(alignment);
  return std::aligned_alloc(unit, (bytes / unit + 1) * unit);
}

void *allocate_or_throw(size_t bytes, std::align_val_t alignment) {
  if (void *const p = allocate(bytes, alignment))
    return p;
  throw std::bad_alloc();
}

constexpr std::align_val_t kDefault{alignof(std::max_align_t)};

} // namespace

int64_t lstm_fastkernels::allocations() { return count; }
void lstm_fastkernels::fail_allocation(int64_t n) { failing = n ? count + n : 0; }

// Arrays, too: a sanitizer's own forms would not come here.
void *operator new(size_t n) { return allocate_or_throw(n, kDefault); }
void *operator new[](size_t n) { return allocate_or_throw(n, kDefault); }
void *operator new(size_t n, std::align_val_t a) { return allocate_or_throw(n, a); }
void *operator new[](size_t n, std::align_val_t a) { return allocate_or_throw(n, a); }
void *operator new(size_t n, const std::nothrow_t &) noexcept { return allocate(n, kDefault); }
void *operator new[](size_t n, const std::nothrow_t &) noexcept { return allocate(n, kDefault); }

void operator delete(void *p) noexcept { std::free(p); }
void operator delete[](void *p) noexcept { std::free(p); }
void operator delete(void *p, size_t) noexcept { std::free(p); }
void operator delete[](void *p, size_t) noexcept { std::free(p); }
void operator delete(void *p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void *p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void *p, size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void *p, size_t, std::align_val_t) noexcept { std::free(p); }
