#include "persistent_instances.h"

namespace lstm_fastkernels {
namespace cuda {

PersistentKernel cluster_instance(const PersistentShape &shape) {
  return persistent_instance<ClusterExchange, false, kLargestClusterTiles>(shape);
}

} // namespace cuda
} // namespace lstm_fastkernels
