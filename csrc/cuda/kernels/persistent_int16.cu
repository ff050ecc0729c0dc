#include "cuda/kernels/grid_exchange.h"
#include "cuda/kernels/persistent_instances.h"

namespace lstm_fastkernels {
namespace cuda {

template <int> using Int16Grid = GridExchange<Arithmetic::signed16, 1>;

PersistentKernel int16_grid_instance(const PersistentShape &shape) {
  return persistent_instance<Int16Grid, 1, 2, 4, 8>(shape);
}

} // namespace cuda
} // namespace lstm_fastkernels
