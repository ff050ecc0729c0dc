#include "runtime/split.h"

#include <algorithm>
#include <limits>

#include "runtime/processors.h"

namespace lstm_fastkernels {
namespace {

// Of the products of a layer for one row, the least or the largest.
template <class Choose>
int64_t products_of_a_layer(const PackedStack &stack, const Choose &choose) {
  const auto of = [](const PackedLayer &layer) {
    return layer.ih.products() + layer.hh.products() + layer.hr.products();
  };
  int64_t chosen = of(stack.layers.front());
  for (const PackedLayer &layer : stack.layers)
    chosen = choose(chosen, of(layer));
  return chosen;
}

bool is_low_rank(const PackedLayer &layer) {
  return layer.ih.is_low_rank() || layer.hh.is_low_rank() || layer.hr.is_low_rank();
}

// So many members hold a layer's weights in their caches.
int64_t members_to_hold(const PackedStack &stack) {
  const auto largest = [](int64_t a, int64_t b) { return std::max(a, b); };
  return divide_up(products_of_a_layer(stack, largest), kProductsHeld);
}

// More members than this lose in a team that runs so many rows.
int64_t worthwhile_members(const PackedStack &stack, int64_t rows) {
  if (std::any_of(stack.layers.begin(), stack.layers.end(), is_low_rank))
    return 1; // the products with one factor wait for those with the other
  const auto least = [](int64_t a, int64_t b) { return std::min(a, b); };
  const int64_t products = products_of_a_layer(stack, least);
  return std::max<int64_t>(1, products * std::min(rows, kProductsWorthAMember) /
                                  kProductsWorthAMember);
}

} // namespace

Split split_of(const PackedStack &stack, const LstmArguments &a) {
  Split split{0, 1, 1, 1};
  for (const PackedLayer &layer : stack.layers)
    split.products += layer.ih.products() + layer.hh.products() + layer.hr.products();
  if (__builtin_mul_overflow(split.products, a.batch_size * a.time_steps, &split.products))
    split.products = std::numeric_limits<int64_t>::max();
  if (split.products < kProductsWorthAThread)
    return split;
  const int64_t directions = stack.shape.num_directions;
  const int64_t allowed = a.threads > 1 ? std::min(a.threads, usable_processors()) : 1;
  const int64_t each = std::max<int64_t>(1, allowed / directions);
  const int64_t wanted = std::min(members_to_hold(stack), worthwhile_members(stack, a.batch_size));
  split.ranges = std::clamp<int64_t>(each / std::min(wanted, each), 1, a.batch_size);
  if (directions * split.ranges <= kMostTeams)
    split.members =
        std::min(each / split.ranges, worthwhile_members(stack, a.batch_size / split.ranges));
  split.threads = static_cast<int>(std::min(allowed, directions * split.ranges * split.members));
  return split;
}

} // namespace lstm_fastkernels
