#include "persistent.h"

#include <algorithm>

#include "persistent_instances.h"
#include "persistent_shared.h"

namespace lstm_fastkernels {
namespace cuda {
namespace {

// Up to so many rows, 8 parts are best: a lane's sums are few. TODO

PersistentKernel instance(const PersistentShape &shape) {
  return shape.cluster  ? cluster_instance(shape)
         : shape.sparse ? sparse_grid_instance(shape)
                        : grid_instance(shape);
}

} // namespace
} // namespace cuda
} // namespace lstm_fastkernels
