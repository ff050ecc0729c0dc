#include "cuda/kernels/persistent_instances.h"

namespace lstm_fastkernels {
namespace cuda {

PersistentKernel int16_instance(const PersistentShape &shape) {
  return shape.cluster
             ? persistent_instance<Arithmetic::signed16, ClusterExchange, 1, 2>(shape)
             : persistent_instance<Arithmetic::signed16, GridOfFragments, 1, 2, 4, 8>(shape);
}

} // namespace cuda
} // namespace lstm_fastkernels
