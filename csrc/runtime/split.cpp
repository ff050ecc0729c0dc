#include "runtime/split.h"

#include <algorithm>
#include <limits>

namespace lstm_fastkernels {

Split split_of(const PackedStack &stack, const LstmArguments &a) {
  Split split{0, 1, 1};
  for (const PackedLayer &layer : stack.layers)
    split.products += layer.ih.products() + layer.hh.products() + layer.hr.products();
  if (__builtin_mul_overflow(split.products, a.batch_size * a.time_steps, &split.products))
    split.products = std::numeric_limits<int64_t>::max();
  if (split.products < kProductsWorthAThread)
    return split;
  const int64_t directions = stack.shape.num_directions;
  split.ranges = std::clamp<int64_t>(a.threads / directions, 1, a.batch_size);
  split.threads = static_cast<int>(std::clamp<int64_t>(a.threads, 1, directions * split.ranges));
  return split;
}

} // namespace lstm_fastkernels
