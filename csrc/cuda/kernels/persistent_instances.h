// Finds the kernel instance of a PersistentShape.
#pragma once

#include <string>

#include "common/fail.h"
#include "cuda/kernels/cluster_exchange.h"
#include "cuda/kernels/grid_exchange.h"
#include "cuda/kernels/persistent_kernel.h"

namespace lstm_fastkernels {
namespace cuda {

using PersistentKernel = void (*)(const SideBySide<PersistentArguments>);

template <int> using GridOfFragments = GridExchange;

// The first instance, of those for kFragments... fragments, with registers for the shape's.
// Exchange<n> is the exchange for n fragments: a block of a cluster has as many tiles.
template <Arithmetic F, template <int> class Exchange, int... kFragments>
PersistentKernel persistent_instance(const PersistentShape &shape) {
  PersistentKernel found = nullptr;
  ((found = !found && shape.fragments <= kFragments
                ? persistent_kernel<F, Exchange<kFragments>, kFragments>
                : found),
   ...);
  if (!found)
    fail("there is no persistent kernel for " + std::to_string(shape.fragments) +
         " fragments a warp");
  return found;
}

PersistentKernel int8_instance(const PersistentShape &shape);
PersistentKernel int16_instance(const PersistentShape &shape);

} // namespace cuda
} // namespace lstm_fastkernels
