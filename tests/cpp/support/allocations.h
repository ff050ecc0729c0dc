// How often the program has allocated memory, on any thread: operator new and delete count.
#pragma once

#include <cstdint>

namespace lstm_fastkernels {

int64_t allocations();

// Of a call.
template <class Call> int64_t allocations_of(const Call &call) {
  const int64_t before = allocations();
  call();
  return allocations() - before;
}

} // namespace lstm_fastkernels
