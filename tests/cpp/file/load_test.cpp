// An Lstm that was loaded computes what one of the same weights does.
#include "check.h"
#include "guarded.h"
#include "lstm_fastkernels/file.h"
#include "stored.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

// Calls test(stack) with all kinds of weights, dense and in blocks.
template <class Test> void for_each_stack(const Test &test) {
  for (Precision precision : kPrecisions)
    for (int64_t layers : {1, 2})
      for (int64_t directions : {1, 2})
        for (int64_t proj : {0, 4}) {
          WITH("precision ", precision_name(precision), " layers ", layers, " directions ",
               directions, " proj ", proj);
          const SourceStack stack =
              random_stack(shape_of(7, 9, proj, layers, directions, precision), Weights::any, 91);
          test(stack);
          WITH("in blocks");
          test(in_mixed_blocks(stack, static_cast<uint64_t>(layers)));
        }
}

void check_loads(const File &file, const std::string &name, const HeldStack &stack) {
  WITH("LSTM '", name, "'");
  const Sequence sequence = random_sequence(stack.shape, 3, 2, 92);
  const Lstm loaded = Lstm::load(file, name);
  const Lstm direct(stack.shape, stack.views().data());
  CHECK(loaded.packed_bytes() == direct.packed_bytes());
  const auto packed = stack.packed();
  for_each_isa([&](std::string_view) {
    const Result expected = forward(packed, sequence);
    check_same(forward(loaded, sequence), expected);
    check_same(forward(direct, sequence), expected);
  });
}

TEST(what_is_loaded_is_what_was_stored) {
  for_each_stack([](const SourceStack &stack) {
    const HeldStack held = stack.held();
    const Guarded<uint8_t> memory(stored(held).bytes());
    check_loads(File::from_memory(memory.data(), stored(held).bytes().size()), "", held);
  });
}

TEST(files_load_at_any_alignment) {
  for (Precision precision : kPrecisions) {
    const HeldStack held =
        in_blocks(random_stack(shape_of(7, 9, 4, 1, 1, precision), Weights::any, 93), {8, 4}, 0.5f)
            .held();
    StoredFile parts = stored(held);
    for (size_t shift = 0; shift < 8; ++shift) {
      WITH("precision ", precision_name(precision), " shift ", shift);
      Bytes bytes(shift);
      const Bytes file = parts.bytes();
      bytes.insert(bytes.end(), file.begin(), file.end());
      check_loads(File::from_memory(bytes.data() + shift, file.size()), "", held);
    }
  }
}

TEST(each_lstm_of_a_file_loads_by_its_name) {
  std::map<std::string, HeldStack> stacks;
  for (const char *name : {"decoder", "encoder.0", "encoder.1", "a \"strange\\name\""}) {
    const Precision precision = stacks.size() % 2 ? kFloat32 : kInt8;
    stacks[name] =
        random_stack(shape_of(7, 9, 0, 1, 1, precision), Weights::any, 94 + stacks.size()).held();
  }
  StoredFile parts;
  for (const auto &[name, stack] : stacks)
    parts.add(name, stack);
  parts.tensors["encoder.norm"] = {"BF16", {3}, Bytes(6)};
  const Bytes bytes = parts.bytes();
  const File file = File::from_memory(bytes.data(), bytes.size());
  for (const auto &[name, stack] : stacks)
    check_loads(file, name, stack);
}

TEST(an_lstm_without_biases_has_zeros) {
  for (Precision precision : {kInt8, kFloat32}) {
    HeldStack stack = random_stack(shape_of(7, 9, 0, 2, 1, precision), Weights::any, 98).held();
    for (HeldLayer &layer : stack.layers)
      layer.bias.clear();
    const Bytes bytes = stored(stack).bytes();
    for (HeldLayer &layer : stack.layers)
      layer.bias.assign(36, 0.0f);
    check_loads(File::from_memory(bytes.data(), bytes.size()), "", stack);
  }
}

TEST(an_lstm_outlives_its_file) {
  const HeldStack held = random_stack(shape_of(7, 9), Weights::any, 99).held();
  const Sequence sequence = random_sequence(held.shape, 3, 2, 92);
  Bytes bytes = stored(held).bytes();
  const Lstm lstm = Lstm::load(File::from_memory(bytes.data(), bytes.size()));
  bytes.assign(bytes.size(), 0xff);
  bytes.shrink_to_fit();
  for_each_isa([&](std::string_view) {
    check_same(forward(lstm, sequence), forward(held.packed(), sequence));
  });
}

TEST(an_lstm_that_is_not_there_is_refused) {
  StoredFile parts;
  const HeldStack stack = random_stack(shape_of(3, 5), Weights::any, 90).held();
  parts.add("b", stack);
  parts.add("a", stack);
  const Bytes bytes = parts.bytes(), none = safetensors("{}", {});
  const File file = File::from_memory(bytes.data(), bytes.size(), "two");
  for (const char *name : {"", "c", "A", "a."})
    CHECK_THROWS(Lstm::load(file, name),
                 check::text("two: no LSTM '", name, "', it holds 'a', 'b'"));
  CHECK_THROWS(Lstm::load(File::from_memory(none.data(), none.size(), "none")),
               "none: no LSTM '', nor any other: lstm_fastkernels.save_file writes them");
}

} // namespace
} // namespace lstm_fastkernels
