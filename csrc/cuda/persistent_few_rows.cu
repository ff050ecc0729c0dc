#include "grid_exchange.h"
#include "persistent_instances.h"

namespace lstm_fastkernels {
namespace cuda {
namespace {

template <int> using EightRows = GridExchange<1>;

} // namespace

PersistentKernel few_rows_grid_instance(const PersistentShape &shape) {
  return shape.sparse ? persistent_instance<EightRows, true, kLargestBlocks>(shape)
                      : persistent_instance<EightRows, false, kLargestBlocks>(shape);
}

} // namespace cuda
} // namespace lstm_fastkernels
