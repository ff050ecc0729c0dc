// From the numbers of a PersistentShape to its instance of the kernel.
#pragma once

#include <string>

#include "common/fail.h"
#include "cuda/kernels/persistent_kernel.h"

namespace lstm_fastkernels {
namespace cuda {

using PersistentKernel = void (*)(const SideBySide<PersistentArguments>);

// The first instance that has registers for the shape's blocks a warp, of those with so many;
// Exchange<n> is that of n. Not an alias of an unnamed namespace: two of one name would be taken
// for one.
template <template <int> class Exchange, int... kBlocks>
PersistentKernel persistent_instance(const PersistentShape &shape) {
  PersistentKernel found = nullptr;
  ((found =
        !found && shape.blocks <= kBlocks ? persistent_kernel<Exchange<kBlocks>, kBlocks> : found),
   ...);
  if (!found)
    fail("there is no persistent kernel for " + std::to_string(shape.blocks) + " blocks a warp");
  return found;
}

PersistentKernel cluster_instance(const PersistentShape &shape);
PersistentKernel int16_grid_instance(const PersistentShape &shape);
PersistentKernel few_rows_grid_instance(const PersistentShape &shape);
PersistentKernel many_rows_grid_instance(const PersistentShape &shape);

} // namespace cuda
} // namespace lstm_fastkernels
