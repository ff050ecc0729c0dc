// How often the program has allocated memory, on any thread, and one that fails: of operator new.
#pragma once

#include <cstdint>

namespace lstm_fastkernels {

int64_t allocations();

// The n-th one from now on fails; 0: none does.
void fail_allocation(int64_t n);

// Of a call.
template <class Call> int64_t allocations_of(const Call &call) {
  const int64_t before = allocations();
  call();
  return allocations() - before;
}

} // namespace lstm_fastkernels
