// From the numbers of a PersistentShape to its instance of the kernel.
#pragma once

#include <string>

#include "fail.h"
#include "persistent_kernel.h"

namespace lstm_fastkernels {
namespace cuda {

using PersistentKernel = void (*)(const Both<PersistentArguments>);

template <int> using OnGrid = GridExchange;

// Of one exchange with kLargest blocks at most; a cluster has as many tiles a block as blocks a
// warp: both are the hidden size / 256, rounded up.
template <template <int> class Exchange, bool kSparse, int kLargest>
PersistentKernel persistent_instance(const PersistentShape &shape) {
  using Of = Exchange<kLargest>;
  if (shape.blocks == kLargest) {
    if constexpr (Of::kTiles <= kLargestTilesOfEightParts)
      if (shape.parts == 8)
        return persistent_kernel<Of, 8, kLargest, kSparse>;
    return persistent_kernel<Of, 4, 2 * kLargest, kSparse>;
  }
  if constexpr (kLargest > 1)
    return persistent_instance<Exchange, kSparse, kLargest - 1>(shape);
  else
    fail("there is no persistent kernel for " + std::to_string(shape.blocks) + " blocks a warp");
}

PersistentKernel grid_instance(const PersistentShape &shape);
PersistentKernel sparse_grid_instance(const PersistentShape &shape);
PersistentKernel cluster_instance(const PersistentShape &shape);

} // namespace cuda
} // namespace lstm_fastkernels
