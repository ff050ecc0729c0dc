// What the emulator refuses, where a device would hang, or compute something.
#include "cuda/kernels/device.h"
#include "fiber.h"
#include "support.h"

#if defined(LFK_ADDRESS_SANITIZER)
#include <sanitizer/asan_interface.h>
#endif

namespace lstm_fastkernels {
namespace device {
namespace {

struct Nothing {};

void check_refused(void (*kernel)(Nothing), const char *part, const Launch &shape = {{2}, 64, 64}) {
  for (uint64_t seed = 0; seed < 6; ++seed) {
    WITH("order ", seed);
    emulator::set_order(seed);
    CHECK_THROWS(launch(kernel, shape, nullptr, Nothing{}), part);
  }
  emulator::set_order(0);
}

LFK_KERNEL(64, 1) some_return(LFK_PARAMETERS(Nothing)) {
  if (thread_index() == 40)
    return;
  sync_threads();
}
LFK_KERNEL(64, 1) some_lanes_return(LFK_PARAMETERS(Nothing)) {
  if (lane() >= 16)
    any_lane(true);
}
LFK_KERNEL(64, 1) lanes_differ(LFK_PARAMETERS(Nothing)) {
  if (lane() == 0)
    largest_of_lanes(1);
  else
    any_lane(true);
}
LFK_KERNEL(64, 1) signs_differ(LFK_PARAMETERS(Nothing)) {
  int32_t sum[4] = {};
  const uint32_t a[4] = {}, b[2] = {};
  if (lane() == 0)
    mma_s8s8(sum, a, b);
  else
    mma_s8u8(sum, a, b);
}
LFK_KERNEL(64, 1) barriers_differ(LFK_PARAMETERS(Nothing)) {
  if (lane() == 0)
    sync_threads();
  else
    any_lane(true);
}

TEST(emulator_refuses_divergence) {
  check_refused(some_return, "thread");
  check_refused(some_return, "sync_threads");
  check_refused(some_lanes_return, "any_lane");
  check_refused(lanes_differ, "any_lane");
  check_refused(signs_differ, "mma_s8");
  check_refused(barriers_differ, "sync_threads");
}

TEST(emulator_names_the_place) {
  CHECK_THROWS(launch(some_return, {{2, 3}, 64}, nullptr, Nothing{}),
               "block (0, 0, 0), thread 40 returns while block (0, 0, 0), thread 0 waits at "
               "sync_threads");
  CHECK_THROWS(launch(barriers_differ, {{2, 3}, 64}, nullptr, Nothing{}), "deadlock");
}

LFK_KERNEL(64, 1) to_odd_address(LFK_PARAMETERS(Nothing)) {
  alignas(16) static const char from[16] = {};
  copy_async_16(shared_memory<char>() + 8, from);
}
LFK_KERNEL(64, 1) from_odd_address(LFK_PARAMETERS(Nothing)) {
  alignas(16) static const char from[32] = {};
  copy_async_16(shared_memory<char>(), from + 4);
}
LFK_KERNEL(64, 1) beyond_memory(LFK_PARAMETERS(Nothing)) {
  alignas(16) static const char from[16] = {};
  copy_async_16(shared_memory<char>() + 64, from);
}

TEST(emulator_refuses_copies) {
  check_refused(to_odd_address, "misaligned");
  check_refused(from_odd_address, "misaligned");
  check_refused(beyond_memory, "no shared memory");
}

LFK_KERNEL(64, 1) nothing(LFK_PARAMETERS(Nothing)) {}

TEST(emulator_refuses_launches) {
  check_refused(nothing, "1 to 1024 threads", {{}, 0});
  check_refused(nothing, "1 to 1024 threads", {{}, 1056});
  check_refused(nothing, "whole warps", {{}, 48});
  check_refused(nothing, "227 KB", {{}, 32, 227 * 1024 + 1});
  check_refused(nothing, "no block", {{0}, 32});
  check_refused(nothing, "1 to 16 blocks", {{32}, 32, 0, 32});
  check_refused(nothing, "multiple of the cluster", {{6}, 32, 0, 4});
  check_refused(nothing, "at once", {{1000}, 32, 0, 1, true});
  launch(nothing, {{16}, 1024, 227 * 1024, 16}, nullptr, Nothing{});
}

LFK_KERNEL(64, 1) launches(LFK_PARAMETERS(Nothing)) {
  launch(nothing, {{}, 32}, nullptr, Nothing{});
}

TEST(emulator_refuses_launches_in_kernels) { check_refused(launches, "a kernel launches none"); }

struct Counted {
  explicit Counted(int &count) : count_(count) { ++count_; }
  ~Counted() { --count_; }
  Counted(const Counted &) = delete;
  Counted &operator=(const Counted &) = delete;
  int &count_;
};

struct FailureParameters {
  int *alive;
};

LFK_KERNEL(64, 1) fails(LFK_PARAMETERS(FailureParameters) p) {
  const Counted counted(*p.alive);
  sync_threads();
  CHECK(thread_index() != 5);
  sync_threads();
}

TEST(failures_leave_the_emulator) {
  for (uint64_t seed = 0; seed < 6; ++seed) {
    emulator::set_order(seed);
    int alive = 0;
    bool failed = false;
    try {
      launch(fails, {{2}, 64}, nullptr, FailureParameters{&alive});
    } catch (const check::Failure &failure) {
      failed = failure.message.find("thread_index() != 5") != std::string::npos;
    }
    CHECK(failed);
    CHECK(alive == 0);
  }
  emulator::set_order(0);
}

#if defined(LFK_ADDRESS_SANITIZER)
struct AddressParameters {
  bool *seen;
};

LFK_KERNEL(32, 1) looks_behind(LFK_PARAMETERS(AddressParameters) p) {
  char *const end = shared_memory<char>() + 100;
  *p.seen = !__asan_address_is_poisoned(end - 1) && __asan_address_is_poisoned(end);
}

TEST(sanitizer_sees_shared_memory_end) {
  bool seen = false;
  launch(looks_behind, {{}, 32, 100}, nullptr, AddressParameters{&seen});
  CHECK(seen);
}
#endif

} // namespace
} // namespace device
} // namespace lstm_fastkernels
