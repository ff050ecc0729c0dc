// Canonical tensors come back from the packed form for the CPU.
#include "weights/unpack.h"

#include <algorithm>

#include "check.h"
#include "stack.h"
#include "tampered.h"
#include "unpacked.h"

namespace lstm_fastkernels {
namespace {

struct ForCpu : Packing {
  using Packing::pack;
  Bytes pack(const LstmShape &shape, const CellWeights *cells) const override {
    const PackPlan plan(shape, cells);
    Bytes packed(plan.bytes());
    plan.write(packed.data(), packed.size());
    return packed;
  }
  std::vector<UnpackedTensor> unpack(const Bytes &packed) const override {
    return lstm_fastkernels::unpack(PackedStack(packed.data(), packed.size()));
  }
};

TEST(dense_tensors_come_back) { check_dense_tensors_come_back(ForCpu()); }
TEST(blocks_come_back) { check_blocks_come_back(ForCpu()); }
TEST(mixtures_come_back) { check_mixtures_come_back(ForCpu()); }
TEST(zero_biases_come_back) { check_zero_biases_come_back(ForCpu()); }
TEST(packing_again_gives_the_same_bytes) { check_packing_again(ForCpu(), kinds_of_stacks()); }
TEST(changed_words_are_refused_or_come_back) {
  check_changed_words(ForCpu(), kinds_of_stacks(), 1);
}

TEST(tables_come_back) {
  const SourceStack stack = random_stack(shape_of(5, 9, 3, 1, 2), Weights::any, 65);
  for (Precision table : kTables) {
    WITH("precision ", precision_name(table));
    const SourceStack with_table = with_tables(stack, table, 66);
    const HeldMatrix held = with_table.layers[1].ih.held();
    const Bytes expected = table == kHalfTable ? bytes_of(held.halves) : bytes_of(held.floats);
    const Bytes packed = ForCpu().pack(with_table);
    const Unpacked unpacked(ForCpu(), packed);
    const TensorView &view = unpacked.tensors.at("weight_ih_l0_reverse_table");
    CHECK(view.shape == (std::vector<int64_t>{5, 36}));
    CHECK(view.dtype == (table == kHalfTable ? "F16" : "F32"));
    CHECK(view.bytes == expected.size());
    CHECK(std::equal(expected.begin(), expected.end(), static_cast<const uint8_t *>(view.data)));
    CHECK(unpacked.tensors.count("weight_ih_l0_scale") == 0);
  }
}

} // namespace
} // namespace lstm_fastkernels
