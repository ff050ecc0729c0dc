// Canonical tensors come back from the packed form.
#include <algorithm>
#include <deque>
#include <map>
#include <string>

#include "check.h"
#include "stack.h"
#include "stored.h"
#include "support.h"
#include "tampered.h"
#include "weights/packed_stack.h"
#include "weights/unpack.h"

namespace lstm_fastkernels {
namespace {

// What unpack() makes of a packed form.
struct Unpacked {
  explicit Unpacked(const Bytes &packed) : stack(packed.data(), packed.size()) {
    for (const UnpackedTensor &tensor : unpack(stack)) {
      Bytes &data = memory.emplace_back(tensor.view.bytes, uint8_t{0xaa});
      tensor.write(data.data());
      TensorView view = tensor.view;
      view.data = data.data();
      CHECK(tensors.emplace(view.name, view).second);
    }
  }

  Bytes packed_again() const {
    std::vector<Precision> precisions;
    for (const MatrixName &of : matrix_names(stack.shape))
      precisions.push_back(
          matrix_of(stack.layers[static_cast<size_t>(of.cell)], of.kind).precision);
    const CanonicalTensors canonical(stack.shape, true, precisions, tensors);
    const PackPlan plan(stack.shape, canonical.cells());
    Bytes packed(plan.bytes());
    plan.write(packed.data(), packed.size());
    return packed;
  }

  const PackedStack stack;
  std::deque<Bytes> memory;
  std::map<std::string, TensorView> tensors;
};

// That the tensors are those of a file, bit by bit.
void check_tensors(const Unpacked &unpacked, const std::map<std::string, StoredTensor> &expected) {
  CHECK(unpacked.tensors.size() == expected.size());
  for (const auto &[name, tensor] : expected) {
    WITH(name);
    const auto found = unpacked.tensors.find(name);
    CHECK(found != unpacked.tensors.end());
    const TensorView &view = found->second;
    CHECK(view.dtype == tensor.dtype);
    CHECK(view.shape == tensor.shape);
    CHECK(view.bytes == tensor.data.size());
    CHECK(std::equal(tensor.data.begin(), tensor.data.end(),
                     static_cast<const uint8_t *>(view.data)));
  }
}

void check_comes_back(const SourceStack &stack) {
  check_tensors(Unpacked(stack.packed()), stored(stack.held()).tensors);
}

TEST(dense_tensors_come_back) {
  for (Precision precision : kPrecisions)
    for (Weights weights : {Weights::pair_safe, Weights::any})
      for (int64_t size : kAwkward)
        for (int64_t directions : {1, 2}) {
          WITH("precision ", precision_name(precision), " size ", size, " directions ", directions);
          const int64_t proj = size > 8 ? size / 2 : 0;
          check_comes_back(random_stack(shape_of(152 - size, size, proj, 2, directions, precision),
                                        weights, 61));
        }
}

TEST(blocks_come_back) {
  for_each_stack_in_blocks([](SourceStack stack) {
    check_comes_back(stack);
    const auto without_zeros = stored(stack.held()).tensors;
    stack.for_each_matrix([](SourceMatrix &m) { m.explicit_zeros = true; });
    check_tensors(Unpacked(stack.packed()), without_zeros);
  });
}

TEST(factors_come_back) {
  for (Precision precision : kPrecisions) {
    WITH("precision ", precision_name(precision));
    check_comes_back(
        in_factors(random_stack(shape_of(11, 9, 5, 1, 2, precision), Weights::any, 63), 64));
  }
}

TEST(tables_come_back) {
  const SourceStack stack = random_stack(shape_of(5, 9, 3, 1, 2), Weights::any, 65);
  for (Precision table : kTables) {
    WITH("precision ", precision_name(table));
    const SourceStack with_table = with_tables(stack, table, 66);
    const HeldMatrix held = with_table.layers[1].ih.held();
    const Bytes expected = table == kHalfTable ? bytes_of(held.halves) : bytes_of(held.floats);
    const Unpacked unpacked(with_table.packed());
    const TensorView &view = unpacked.tensors.at("weight_ih_l0_reverse_table");
    CHECK(view.shape == (std::vector<int64_t>{5, 36}));
    CHECK(view.dtype == (table == kHalfTable ? "F16" : "F32"));
    CHECK(view.bytes == expected.size());
    CHECK(std::equal(expected.begin(), expected.end(), static_cast<const uint8_t *>(view.data)));
    CHECK(unpacked.tensors.count("weight_ih_l0_scale") == 0);
  }
}

// A group size is found by the number of scales: the record may have a smaller one.
TEST(packing_again_gives_the_same_bytes) {
  for (const SourceStack &stack : kinds_of_stacks()) {
    const Bytes packed = stack.packed(), again = Unpacked(packed).packed_again();
    CHECK(again.size() == packed.size());
    const auto records = static_cast<std::ptrdiff_t>(header_size(stack.shape));
    CHECK(std::equal(again.begin() + records, again.end(), packed.begin() + records));
    CHECK(Unpacked(again).packed_again() == again);
  }
  SourceStack without_bias = random_stack(shape_of(5, 9, 3, 2, 2), Weights::any, 67);
  for (SourceLayer &layer : without_bias.layers)
    layer.bias.clear();
  const Bytes packed = without_bias.packed();
  CHECK(Unpacked(packed).packed_again() == packed);
}

// Whatever passes the check can be unpacked.
TEST(changed_words_are_refused_or_come_back) {
  int64_t refused = 0, taken = 0;
  for (const SourceStack &stack : kinds_of_stacks()) {
    if (stack.shape.hidden_size > 100)
      continue;
    Bytes packed = stack.packed();
    for (size_t at = static_cast<size_t>(header_size(stack.shape)); at < packed.size(); at += 4) {
      WITH("at ", at, " of ", packed.size());
      const auto word = read<uint32_t>(packed.data() + at, 0);
      write(packed.data() + at, 0, at % 8 ? word ^ 0x80 : word ^ 1);
      try {
        CHECK(Unpacked(packed).packed_again().size() == packed.size());
        ++taken;
      } catch (const Error &) {
        ++refused;
      }
      write(packed.data() + at, 0, word);
    }
  }
  CHECK(refused > 1000);
  CHECK(taken > 1000);
}

} // namespace
} // namespace lstm_fastkernels
