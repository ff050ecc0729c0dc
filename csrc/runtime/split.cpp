#include "runtime/split.h"

#include <algorithm>
#include <limits>

#include "runtime/processors.h"

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
  const int allowed = a.threads > 1 ? std::min(a.threads, usable_processors()) : 1;
  split.ranges = std::clamp<int64_t>(allowed / directions, 1, a.batch_size);
  split.threads = static_cast<int>(std::min<int64_t>(allowed, directions * split.ranges));
  return split;
}

} // namespace lstm_fastkernels
