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
  int64_t parts = 0;                                   // between which members meet
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
             std::max(found.most, own), found.parts + parts_of(layer)};
  }
  return found;
}

// More members than this lose in a team that runs so many rows.
int64_t worthwhile_members(const Products &products, int64_t rows) {
  return std::max<int64_t>(1, products.least * std::min(rows, kProductsWorthAMember) /
                                  kProductsWorthAMember);
}

// As many layers at once as there are threads for, then ranges of rows.
Split wavefront_of(const PackedStack &stack, const LstmArguments &a, int64_t threads,
                   int64_t products) {
  const LstmShape &shape = stack.shape;
  Split split;
  split.products = products;
  if (shape.num_directions == 1) {
    split.layers = std::min(shape.num_layers, threads);
    split.ranges = std::min({threads / split.layers, a.batch_size, kMostTeams});
    split.threads = static_cast<int>(split.ranges * split.layers);
  }
  return split;
}

// What a step takes, in half products: those of a thread's rows and, for its weights' way to them,
// half a row more. It was measured on one row that a meeting takes as long as so many products.
double cost(const Products &products, const LstmArguments &a, const Split &split) {
  const int64_t rows = divide_up(a.batch_size, split.ranges);
  const double each_product = 2.0 * static_cast<double>(rows) + 1;
  if (split.layers == 1) {
    const double meeting = split.members > 1 ? 3.0 * kProductsWorthAMember : 0;
    return static_cast<double>(products.all) / static_cast<double>(split.members) * each_product +
           static_cast<double>(products.parts) * meeting;
  }
  const int64_t chunk =
      std::max(divide_up(kShortChunkRows, rows), a.time_steps / kChunksOfWavefront);
  const double waiting = static_cast<double>((split.layers - 1) * std::min(chunk, a.time_steps)) /
                         static_cast<double>(a.time_steps);
  return static_cast<double>(std::max(products.most, products.all / split.layers)) * each_product *
         (1 + waiting);
}

} // namespace

Split split_of(const PackedStack &stack, const LstmArguments &a, bool (*follows_closely)()) {
  const Products products = products_of(stack);
  Split split;
  if (__builtin_mul_overflow(products.all, a.batch_size * a.time_steps, &split.products))
    split.products = std::numeric_limits<int64_t>::max();
  if (a.threads <= 1 || split.products < kProductsWorthAnAwakeThread)
    return split;
  if (!follows_closely() && split.products < kProductsWorthAThread)
    return split;
  const int64_t allowed = std::min(a.threads, usable_processors());
  const int64_t directions = stack.shape.num_directions;
  const int64_t each = std::max<int64_t>(1, allowed / directions);
  // So many that their caches hold a layer's weights.
  const int64_t wanted =
      std::min(divide_up(products.most, kProductsHeld), worthwhile_members(products, a.batch_size));
  split.ranges = std::clamp<int64_t>(each / std::min(wanted, each), 1, a.batch_size);
  if (directions * split.ranges <= kMostTeams)
    split.members =
        std::min(each / split.ranges, worthwhile_members(products, a.batch_size / split.ranges));
  if (const Split wavefront = wavefront_of(stack, a, each, split.products);
      wavefront.layers > 1 && cost(products, a, wavefront) < cost(products, a, split))
    return wavefront;
  split.threads = static_cast<int>(std::min(allowed, directions * split.ranges * split.members));
  return split;
}

} // namespace lstm_fastkernels
