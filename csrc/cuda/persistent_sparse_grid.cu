#include "persistent_instances.h"

namespace lstm_fastkernels {
namespace cuda {

PersistentKernel sparse_grid_instance(const PersistentShape &shape) {
  return persistent_instance<OnGrid, true, kLargestSparseBlocks>(shape);
}

} // namespace cuda
} // namespace lstm_fastkernels
