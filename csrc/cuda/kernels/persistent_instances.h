// From the numbers of a PersistentShape to its instance of the kernel.
#pragma once

#include <string>

#include "common/fail.h"
#include "cuda/kernels/persistent_kernel.h"

namespace lstm_fastkernels {
namespace cuda {

using PersistentKernel = void (*)(const SideBySide<PersistentArguments>);

// Exchange<n> is that of kernels with n blocks a warp, of which there are up to kLargest. Not an
// alias of an unnamed namespace: two of one name would be taken for one.
template <template <int> class Exchange, bool kSparse, int kLargest>
PersistentKernel persistent_instance(const PersistentShape &shape) {
  if (shape.blocks == kLargest)
    return persistent_kernel<Exchange<kLargest>, kLargest, kSparse>;
  if constexpr (kLargest > 1)
    return persistent_instance<Exchange, kSparse, kLargest - 1>(shape);
  else
    fail("there is no persistent kernel for " + std::to_string(shape.blocks) + " blocks a warp");
}

template <template <int> class Dense, template <int> class Sparse>
PersistentKernel grid_instance(const PersistentShape &shape) {
  return shape.sparse ? persistent_instance<Sparse, true, kLargestBlocks>(shape)
                      : persistent_instance<Dense, false, kLargestBlocks>(shape);
}

PersistentKernel cluster_instance(const PersistentShape &shape);
PersistentKernel int16_grid_instance(const PersistentShape &shape);
PersistentKernel few_rows_grid_instance(const PersistentShape &shape);
PersistentKernel many_rows_grid_instance(const PersistentShape &shape);

} // namespace cuda
} // namespace lstm_fastkernels
