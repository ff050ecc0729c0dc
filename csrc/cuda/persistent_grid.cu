#include "persistent_instances.h"

namespace lstm_fastkernels {
namespace cuda {

PersistentKernel grid_instance(const PersistentShape &shape) {
  return persistent_instance<OnGrid, false, kLargestBlocks>(shape);
}

} // namespace cuda
} // namespace lstm_fastkernels
