#include "grid_exchange.h"
#include "persistent_instances.h"

namespace lstm_fastkernels {
namespace cuda {
namespace {

// As many rows a pass as there are registers for, beside the weights.
template <int n> using Dense = GridExchange<(n > 6) ? 2 : 3>;
template <int> using Sparse = GridExchange<2>;

} // namespace

PersistentKernel many_rows_grid_instance(const PersistentShape &shape) {
  return shape.sparse ? persistent_instance<Sparse, true, kLargestBlocks>(shape)
                      : persistent_instance<Dense, false, kLargestBlocks>(shape);
}

} // namespace cuda
} // namespace lstm_fastkernels
