#include "cuda/kernels/grid_exchange.h"
#include "cuda/kernels/persistent_instances.h"

namespace lstm_fastkernels {
namespace cuda {

// As many rows a pass as there are registers for, beside the weights.
template <int n> using DenseGrid = GridExchange<Form::signed8, (n > 6) ? 2 : 3>;
template <int> using SparseGrid = GridExchange<Form::signed8, 2>;

PersistentKernel many_rows_grid_instance(const PersistentShape &shape) {
  return grid_instance<DenseGrid, SparseGrid>(shape);
}

} // namespace cuda
} // namespace lstm_fastkernels
