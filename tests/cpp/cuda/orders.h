// Orders of the emulator's threads, blocks and copies: right kernels do not depend on them.
#pragma once

#include <cstdint>

#include "check.h"
#include "emulator.h"
#include "fiber.h"

namespace lstm_fastkernels {

// Sanitizers look at memory, which is the same in every order and in the largest sizes, and take
// their time. CMakeLists.txt builds the tests without them, too, for all orders and sizes.
#if defined(LFK_ADDRESS_SANITIZER)
constexpr uint64_t kSweptOrders = 1;
constexpr int64_t kLargestHidden = 520;
#else
constexpr uint64_t kSweptOrders = 4;
constexpr int64_t kLargestHidden = 65535;
#endif

// Calls test() in so many orders; ends on the first.
template <uint64_t orders = kSweptOrders, class Test> void for_each_order(const Test &test) {
  for (uint64_t order = orders; order-- > 0;) {
    WITH("order ", order);
    device::emulator::set_order(order);
    test();
  }
}

} // namespace lstm_fastkernels
