// Finds the kernel instance of a PersistentShape.
#pragma once

#include <string>

#include "common/fail.h"
#include "cuda/kernels/persistent_kernel.h"

namespace lstm_fastkernels {
namespace cuda {

using PersistentKernel = void (*)(const SideBySide<PersistentArguments>);

// The first instance, of those for kFragments... fragments, with registers for the shape's.
// Exchange<n> is the exchange for n fragments; an alias in an unnamed namespace would not do: nvcc
// mistakes two of the same name for one.
template <template <int> class Exchange, int... kFragments>
PersistentKernel persistent_instance(const PersistentShape &shape) {
  PersistentKernel found = nullptr;
  ((found = !found && shape.fragments <= kFragments
                ? persistent_kernel<Exchange<kFragments>, kFragments>
                : found),
   ...);
  if (!found)
    fail("there is no persistent kernel for " + std::to_string(shape.fragments) +
         " fragments a warp");
  return found;
}

PersistentKernel cluster_instance(const PersistentShape &shape);
PersistentKernel int16_grid_instance(const PersistentShape &shape);
PersistentKernel few_rows_grid_instance(const PersistentShape &shape);
PersistentKernel many_rows_grid_instance(const PersistentShape &shape);

} // namespace cuda
} // namespace lstm_fastkernels
