#include "tampered.h"

#include <algorithm>

#include "check.h"
#include "support.h"
#include "weights/packed.h"

namespace lstm_fastkernels {

std::vector<SourceStack> kinds_of_stacks() {
  std::vector<SourceStack> stacks;
  for (Precision precision : kPrecisions)
    for (Weights weights : {Weights::pair_safe, Weights::any}) {
      stacks.push_back(random_stack(shape_of(5, 9, 3, 1, 2, precision), weights, 1));
      stacks.push_back(in_blocks(stacks.back(), {8, 4}, 0.6f));
      // More than one window, the last slice of which is short.
      stacks.push_back(
          in_blocks(random_stack(shape_of(6, 133, 0, 1, 1, precision), weights, 2), {8, 4}, 0.1f));
    }
  for (Precision precision : kPrecisions)
    stacks.push_back(
        in_factors(random_stack(shape_of(11, 9, 5, 1, 2, precision), Weights::any, 5), 6));
  for (Precision table : kTables)
    stacks.push_back(with_tables(random_stack(shape_of(5, 9, 3, 1, 2), Weights::any, 7), table, 8));
  stacks.push_back(in_mixed_blocks(mixed_stack(shape_of(11, 17, 10, 3), 3), 4));
  return stacks;
}

bool runs_the_same_everywhere(const std::vector<uint8_t> &packed) {
  LstmShape shape;
  bool ids = false;
  try {
    const PackedStack stack(packed.data(), packed.size());
    shape = stack.shape;
    ids = stack.takes_ids();
  } catch (const Error &) {
    return false;
  }
  const Sequence sequence = ids ? random_ids(shape, 2, 3, 5) : random_sequence(shape, 2, 3, 5);
  Result expected;
  for_each_isa([&](std::string_view isa) {
    const Result found = forward(packed, sequence);
    if (isa == supported_isas().front())
      expected = found;
    check_same(found, expected);
  });
  return true;
}

} // namespace lstm_fastkernels
