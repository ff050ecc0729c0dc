#include "cluster_exchange.h"
#include "persistent_instances.h"

namespace lstm_fastkernels {
namespace cuda {

// As many tiles a block as blocks a warp: both are the hidden size / 256, rounded up.
PersistentKernel cluster_instance(const PersistentShape &shape) {
  return persistent_instance<ClusterExchange, false, kLargestClusterTiles>(shape);
}

} // namespace cuda
} // namespace lstm_fastkernels
