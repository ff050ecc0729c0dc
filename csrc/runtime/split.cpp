#include "runtime/split.h"

#include <algorithm>
#include <limits>

#include "runtime/processors.h"

namespace lstm_fastkernels {
namespace {

// For one row.
struct Products {
  int64_t all = 0;
  int64_t least = std::numeric_limits<int64_t>::max(); // from meeting to meeting
  int64_t most = 0;                                    // of a layer
};

// That members of a team do one after the other in a step: U's products wait for V's.
int64_t parts_of(const PackedLayer &layer) {
  return 1 + layer.ih.is_low_rank() + layer.hh.is_low_rank() + layer.hr.is_low_rank();
}

Products products_of(const PackedStack &stack) {
  Products found;
  for (const PackedLayer &layer : stack.layers) {
    const int64_t own = layer.ih.products() + layer.hh.products() + layer.hr.products();
    found = {found.all + own, std::min(found.least, own / parts_of(layer)),
             std::max(found.most, own)};
  }
  return found;
}

// More members than this lose in a team that runs so many rows.
int64_t worthwhile_members(const Products &products, int64_t rows) {
  return std::max<int64_t>(1, products.least * std::min(rows, kProductsWorthAMember) /
                                  kProductsWorthAMember);
}

} // namespace

Split split_of(const PackedStack &stack, const LstmArguments &a) {
  const Products products = products_of(stack);
  Split split{0, 1, 1, 1};
  if (__builtin_mul_overflow(products.all, a.batch_size * a.time_steps, &split.products))
    split.products = std::numeric_limits<int64_t>::max();
  if (split.products < kProductsWorthAThread)
    return split;
  const int64_t directions = stack.shape.num_directions;
  const int64_t allowed = a.threads > 1 ? std::min(a.threads, usable_processors()) : 1;
  const int64_t each = std::max<int64_t>(1, allowed / directions);
  // So many that their caches hold a layer's weights.
  const int64_t wanted =
      std::min(divide_up(products.most, kProductsHeld), worthwhile_members(products, a.batch_size));
  split.ranges = std::clamp<int64_t>(each / std::min(wanted, each), 1, a.batch_size);
  if (directions * split.ranges <= kMostTeams)
    split.members =
        std::min(each / split.ranges, worthwhile_members(products, a.batch_size / split.ranges));
  split.threads = static_cast<int>(std::min(allowed, directions * split.ranges * split.members));
  return split;
}

} // namespace lstm_fastkernels
