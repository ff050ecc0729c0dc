// Canonical tensors come back from the packed form for CUDA devices.
#include "cuda/host/unpack.h"

#include <algorithm>

#include "check.h"
#include "lstm_fastkernels/cuda.h"
#include "stack.h"
#include "tampered.h"
#include "unpacked.h"

namespace lstm_fastkernels {
namespace {

struct ForCuda : Packing {
  using Packing::pack;
  Bytes pack(const LstmShape &shape, const CellWeights *cells) const override {
    const cuda::PackPlan plan(shape, cells);
    Bytes packed(plan.bytes());
    plan.write(packed.data(), packed.size());
    return packed;
  }
  std::vector<UnpackedTensor> unpack(const Bytes &packed) const override {
    return cuda::unpack(packed.data(), packed.size());
  }
};

// Without tables, which are for the CPU alone.
std::vector<SourceStack> kinds() {
  std::vector<SourceStack> stacks = kinds_of_stacks();
  stacks.erase(std::remove_if(stacks.begin(), stacks.end(),
                              [](const SourceStack &stack) { return is_table(stack.precision()); }),
               stacks.end());
  return stacks;
}

TEST(dense_tensors_come_back) { check_dense_tensors_come_back(ForCuda()); }
TEST(blocks_come_back) { check_blocks_come_back(ForCuda()); }
TEST(mixtures_come_back) { check_mixtures_come_back(ForCuda()); }
TEST(zero_biases_come_back) { check_zero_biases_come_back(ForCuda()); }
TEST(packing_again_gives_the_same_bytes) { check_packing_again(ForCuda(), kinds()); }
TEST(changed_words_are_refused_or_come_back) { check_changed_words(ForCuda(), kinds(), 7); }

// Where all of a part of 8 x 4 is: it is not packed, and products with it are none.
TEST(negative_zeros_come_back_as_zeros) {
  SourceStack stack = random_stack(shape_of(11, 9, 0, 1, 1, kFloat32), Weights::any, 70);
  std::vector<float> &weights = stack.layers[0].hh.weights; // [36][9]
  for (size_t row = 0; row < 8; ++row)
    for (size_t column = 0; column < 4; ++column)
      weights[row * 9 + column] = -0.0f;
  weights[8 * 9] = -0.0f;
  const Bytes packed = ForCuda().pack(stack);
  for (size_t row = 0; row < 8; ++row)
    for (size_t column = 0; column < 4; ++column)
      weights[row * 9 + column] = 0.0f;
  check_tensors(Unpacked(ForCuda(), packed), stored(stack.held()).tensors);
}

TEST(other_bytes_are_refused) {
  const Bytes good = ForCuda().pack(random_stack(shape_of(40, 20, 10, 2, 2), Weights::any, 71));
  const auto refused = [&](const Bytes &packed, const std::string &part) {
    CHECK_THROWS(ForCuda().unpack(packed), part);
  };
  for (size_t size = 0; size < good.size(); size += size < 700 ? 1 : 641) {
    WITH("size ", size);
    refused(Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size)), "expected");
  }
  Bytes longer = good;
  longer.push_back(0);
  refused(longer, "bytes for these sizes");
  refused(random_stack(shape_of(40, 20), Weights::any, 72).packed(), "expected the CUDA layout");
  CHECK_THROWS(cuda::unpack(good.data() + 1, good.size() - 1), "aligned to 16 bytes");
}

} // namespace
} // namespace lstm_fastkernels
