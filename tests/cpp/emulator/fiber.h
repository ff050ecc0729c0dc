// A stack of its own for each emulated thread, and the switch from one to another, which
// AddressSanitizer is told of. No system call: the emulator switches millions of times.
#pragma once

#include <cstddef>
#include <memory>

#if defined(__SANITIZE_ADDRESS__)
#define LFK_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LFK_ADDRESS_SANITIZER 1
#endif
#endif

namespace lstm_fastkernels {
namespace device {
namespace emulator {

class Fiber {
public:
  // The caller's own stack.
  Fiber();
  // Calls entry, which never returns, at the first switch to it. Throws std::bad_alloc.
  explicit Fiber(void (*entry)());
  ~Fiber();
  Fiber(const Fiber &) = delete;
  Fiber &operator=(const Fiber &) = delete;

  // Goes on with `to`; returns when something switches back. `this` is what runs now.
  void switch_to(Fiber &to);

  struct State;

private:
  std::unique_ptr<State> state_;
};

} // namespace emulator
} // namespace device
} // namespace lstm_fastkernels
