// Orders of the emulator's threads, blocks and copies: right kernels do not depend on them.
#pragma once

#include <cstdint>

#include "check.h"
#include "emulator.h"

namespace lstm_fastkernels {

// Calls test() in so many orders; ends on the first.
template <uint64_t orders = 4, class Test> void for_each_order(const Test &test) {
  for (uint64_t order = orders; order-- > 0;) {
    WITH("order ", order);
    device::emulator::set_order(order);
    test();
  }
}

} // namespace lstm_fastkernels
