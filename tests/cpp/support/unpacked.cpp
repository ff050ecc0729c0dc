#include "unpacked.h"

#include <algorithm>

#include "check.h"
#include "support.h"
#include "weights/packed_stack.h"

namespace lstm_fastkernels {
namespace {

void hold_zeros(SourceStack &stack, bool explicit_zeros) {
  stack.for_each_matrix([&](SourceMatrix &m) { m.explicit_zeros = explicit_zeros; });
}

// But for blocks without any weight.
void check_come_back(const Packing &packing, SourceStack stack) {
  const Unpacked unpacked(packing, packing.pack(stack));
  hold_zeros(stack, false);
  check_tensors(unpacked, stored(stack.held()).tensors);
}

std::vector<Precision> precisions_of(const SourceStack &stack) {
  std::vector<Precision> precisions;
  for (const MatrixName &of : matrix_names(stack.shape))
    precisions.push_back(matrix_of(stack.layers[static_cast<size_t>(of.cell)], of.kind).precision);
  return precisions;
}

Bytes packed_again(const Packing &packing, const SourceStack &stack, const Bytes &packed) {
  const Unpacked unpacked(packing, packed);
  const CanonicalTensors canonical(stack.shape, true, precisions_of(stack), unpacked.tensors);
  return packing.pack(stack.shape, canonical.cells());
}

} // namespace

Bytes Packing::pack(const SourceStack &stack) const {
  const HeldStack held = stack.held();
  return pack(held.shape, held.views().data());
}

Unpacked::Unpacked(const Packing &packing, const Bytes &packed) {
  for (const UnpackedTensor &tensor : packing.unpack(packed)) {
    Bytes &data = memory.emplace_back(tensor.view.bytes, uint8_t{0xaa});
    tensor.write(data.data());
    TensorView view = tensor.view;
    view.data = data.data();
    CHECK(tensors.emplace(view.name, view).second);
  }
}

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

void check_dense_tensors_come_back(const Packing &packing) {
  for (Precision precision : kPrecisions)
    for (Weights weights : {Weights::pair_safe, Weights::any})
      for (int64_t size : kAwkward)
        for (int64_t directions : {1, 2}) {
          WITH("precision ", precision_name(precision), " size ", size, " directions ", directions);
          const int64_t proj = size > 8 ? size / 2 : 0;
          check_come_back(packing,
                          random_stack(shape_of(152 - size, size, proj, 2, directions, precision),
                                       weights, 61));
        }
}

void check_blocks_come_back(const Packing &packing) {
  const auto check = [&](SourceStack stack) {
    for (bool explicit_zeros : {false, true}) {
      hold_zeros(stack, explicit_zeros);
      check_come_back(packing, stack);
    }
  };
  for_each_stack_in_blocks(check);
  for (Precision precision : kBlockPrecisions) {
    WITH("precision ", precision_name(precision));
    check(in_blocks(random_stack(shape_of(100, 33, 7, 2, 2, precision), Weights::any, 52), {40, 36},
                    0.3f));
  }
}

void check_mixtures_come_back(const Packing &packing) {
  for (Precision precision : kPrecisions) {
    WITH("factors, precision ", precision_name(precision));
    check_come_back(
        packing,
        in_factors(random_stack(shape_of(11, 9, 5, 1, 2, precision), Weights::any, 63), 64));
  }
  const SourceStack mixed = mixed_stack(shape_of(100, 33, 17, 3, 2), 68);
  check_come_back(packing, mixed);
  check_come_back(packing, in_mixed_blocks(mixed, 69));
}

void check_zero_biases_come_back(const Packing &packing) {
  SourceStack stack = random_stack(shape_of(5, 9, 3, 2, 2), Weights::any, 67);
  for (SourceLayer &layer : stack.layers)
    layer.bias.clear();
  const Bytes packed = packing.pack(stack);
  CHECK(packed_again(packing, stack, packed) == packed);
  for (SourceLayer &layer : stack.layers)
    layer.bias.assign(4 * 9, 0.0f);
  check_tensors(Unpacked(packing, packed), stored(stack.held()).tensors);
}

// A group size is found by the number of scales: the record may have a smaller one.
void check_packing_again(const Packing &packing, const std::vector<SourceStack> &stacks) {
  for (const SourceStack &stack : stacks) {
    const Bytes packed = packing.pack(stack), again = packed_again(packing, stack, packed);
    CHECK(again.size() == packed.size());
    const auto records = static_cast<std::ptrdiff_t>(header_size(stack.shape));
    CHECK(std::equal(again.begin() + records, again.end(), packed.begin() + records));
    CHECK(packed_again(packing, stack, again) == again);
  }
}

void check_changed_words(const Packing &packing, const std::vector<SourceStack> &stacks,
                         size_t stride) {
  int64_t refused = 0, taken = 0;
  for (const SourceStack &stack : stacks) {
    if (stack.shape.hidden_size > 100)
      continue;
    Bytes packed = packing.pack(stack);
    for (size_t at = static_cast<size_t>(header_size(stack.shape)); at < packed.size();
         at += 4 * stride) {
      WITH("at ", at, " of ", packed.size());
      const auto word = read<uint32_t>(packed.data() + at, 0);
      write(packed.data() + at, 0, at % 8 ? word ^ 0x80 : word ^ 1);
      try {
        const Bytes again = packed_again(packing, stack, packed);
        CHECK(again.size() <= packed.size()); // a weight of zero may have become one
        CHECK(packed_again(packing, stack, again) == again);
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

} // namespace lstm_fastkernels
