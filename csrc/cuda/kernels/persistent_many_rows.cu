#include "cuda/kernels/grid_exchange.h"
#include "cuda/kernels/persistent_instances.h"

namespace lstm_fastkernels {
namespace cuda {

// Rows a pass are limited by accumulator registers.
template <int n> using ManyRowsGrid = GridExchange<Arithmetic::signed8, (n > 6) ? 2 : 3>;

PersistentKernel many_rows_grid_instance(const PersistentShape &shape) {
  return persistent_instance<ManyRowsGrid, 1, 2, 3, 4, 6, 8>(shape);
}

} // namespace cuda
} // namespace lstm_fastkernels
