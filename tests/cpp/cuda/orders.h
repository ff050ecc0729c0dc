// Orders of the emulator's threads, blocks and copies: right kernels do not depend on them.
#pragma once

#include <cstdint>

#include "check.h"
#include "emulator.h"

namespace lstm_fastkernels {

constexpr uint64_t kOrders[] = {0, 1, 2, 3};

// Calls test() in each; ends on the first.
template <class Test> void for_each_order(const Test &test) {
  for (uint64_t order : kOrders) {
    WITH("order ", order);
    device::emulator::set_order(order);
    test();
  }
  device::emulator::set_order(0);
}

} // namespace lstm_fastkernels
