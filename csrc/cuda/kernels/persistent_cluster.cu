#include "cuda/kernels/cluster_exchange.h"
#include "cuda/kernels/persistent_instances.h"

namespace lstm_fastkernels {
namespace cuda {

// A block has as many tiles as a warp has fragments of a band: hidden size / 256, rounded up.
template <int kTiles> using Int8Cluster = ClusterExchange<Arithmetic::signed8, kTiles>;
template <int kTiles> using Int16Cluster = ClusterExchange<Arithmetic::signed16, kTiles>;

PersistentKernel cluster_instance(const PersistentShape &shape) {
  return shape.arithmetic == Arithmetic::signed8 ? persistent_instance<Int8Cluster, 1, 2, 3>(shape)
                                                 : persistent_instance<Int16Cluster, 1, 2>(shape);
}

} // namespace cuda
} // namespace lstm_fastkernels
