// LSTMs that run from the packed weights of a file, where they lie.
#include <filesystem>
#include <functional>
#include <memory>

#include "check.h"
#include "folder.h"
#include "lstm_fastkernels/file.h"
#include "stored.h"
#include "support.h"
#include "tampered.h"

namespace lstm_fastkernels {
namespace {

// Where the header has its fields, see PackHeader.
constexpr size_t kVersionAt = 8, kBackendAt = 12, kContractAt = 16;

SourceStack small() { return random_stack(shape_of(7, 9, 4, 2, 2), Weights::any, 201); }

StoredFile with_packed(const std::string &name, const SourceStack &stack) {
  StoredFile file;
  file.add(name, stack.held());
  file.add_packed(name, stack.packed());
  return file;
}

Sequence sequence_for(const SourceStack &stack) { return random_input(stack, 3, 2, 202); }

void check_computes(const Lstm &lstm, const SourceStack &stack) {
  const Sequence sequence = sequence_for(stack);
  const auto packed = stack.packed();
  CHECK(lstm.packed_bytes() == packed.size());
  for_each_isa(
      [&](std::string_view) { check_same(forward(lstm, sequence), forward(packed, sequence)); });
}

// Loads from shared memory: whether in place or not, the LSTM must be this one.
void check_loads(const StoredFile &parts, bool in_place, const SourceStack &stack,
                 const std::string &name = "") {
  const Lstm lstm = Lstm::load(in_shared_memory(parts.bytes()), name);
  CHECK(lstm.shares_file() == in_place);
  check_computes(lstm, stack);
}

// Not in place, though the file has packed weights: it must compute what its other tensors say.
void check_packs_anew(const StoredFile &parts, const SourceStack &stack) {
  const Bytes bytes = parts.bytes();
  const Lstm lstm = Lstm::load(in_shared_memory(bytes));
  CHECK(!lstm.shares_file());
  const Sequence sequence = sequence_for(stack);
  check_same(forward(lstm, sequence),
             forward(Lstm::load(File::from_memory(bytes.data(), bytes.size())), sequence));
}

TEST(all_kinds_of_stacks_run_in_place) {
  for (const SourceStack &stack : kinds_of_stacks())
    check_loads(with_packed("", stack), true, stack);
}

TEST(packed_weights_run_at_any_address) {
  const SourceStack stack = small();
  const StoredFile parts = with_packed("", stack);
  for (size_t spaces = 0; spaces < 8; ++spaces) {
    WITH("spaces ", spaces);
    const Bytes bytes = safetensors(parts.header() + std::string(spaces, ' '), parts.data());
    const Lstm lstm = Lstm::load(in_shared_memory(bytes));
    CHECK(lstm.shares_file());
    check_computes(lstm, stack);
  }
}

TEST(each_lstm_of_a_file_runs_from_its_own_packed_weights) {
  const SourceStack a = small(), b = random_stack(shape_of(5, 17, 0, 1, 1, kInt4), Weights::any, 3);
  StoredFile parts = with_packed("encoder.a", a);
  parts.add("encoder.b", b.held());
  parts.add_packed("encoder.b", b.packed());
  parts.add("encoder.c", a.held());
  parts.tensors["packed"] = {"F32", {0}, {}}; // of no LSTM
  check_loads(parts, true, a, "encoder.a");
  check_loads(parts, true, b, "encoder.b");
  check_loads(parts, false, a, "encoder.c");
}

TEST(memory_that_is_not_shared_is_not_run_from) {
  const SourceStack stack = small();
  Bytes bytes = with_packed("", stack).bytes();
  const Lstm lstm = Lstm::load(File::from_memory(bytes.data(), bytes.size()));
  bytes.assign(bytes.size(), 0xff);
  CHECK(!lstm.shares_file());
  check_computes(lstm, stack);
}

TEST(shared_memory_lives_as_long_as_an_lstm_runs_from_it) {
  const SourceStack stack = small();
  for (const bool packed : {true, false}) {
    StoredFile parts = with_packed("", stack);
    if (!packed)
      parts.lstms[""]["packed_from"] = "\"0123456789abcdef\"";
    const Bytes bytes = parts.bytes();
    auto memory = std::make_shared<Bytes>(bytes);
    const std::weak_ptr<Bytes> watched = memory;
    auto lstm = std::make_unique<Lstm>(Lstm::load(
        File::from_memory(std::shared_ptr<const void>(memory, memory->data()), bytes.size())));
    memory.reset();
    CHECK(watched.expired() == !packed);
    const Lstm copy = *lstm;
    lstm.reset();
    check_computes(copy, stack);
    CHECK(watched.expired() == !packed);
  }
}

// The mapped file may go, and another may take its place.
TEST(a_mapped_file_stays_what_it_was) {
  const SourceStack stack = small(),
                    other = random_stack(shape_of(7, 9, 4, 2, 2), Weights::any, 204);
  const Folder folder;
  const std::string path = folder.write("a", with_packed("", stack).bytes());
  const Lstm lstm = Lstm::load(File::map(path));
  CHECK(lstm.shares_file());
  check_computes(lstm, stack);
  std::filesystem::rename(folder.write("b", with_packed("", other).bytes()), path);
  check_computes(lstm, stack);
  check_computes(Lstm::load(File::map(path)), other);
  std::filesystem::remove(path);
  check_computes(lstm, stack);
  CHECK(!Lstm::load(File::open(folder.write("c", with_packed("", stack).bytes()))).shares_file());
}

TEST(an_open_descriptor_can_be_mapped) {
  const SourceStack stack = small();
  const Folder folder;
  const std::string path = folder.write("a", with_packed("", stack).bytes());
  const std::unique_ptr<std::FILE, int (*)(std::FILE *)> opened(std::fopen(path.c_str(), "rb"),
                                                                &std::fclose);
  const File file = File::map(fileno(opened.get()), "a name");
  CHECK(file.name() == "a name");
  check_computes(Lstm::load(file), stack);
  CHECK_THROWS(File::map(-1, "nothing"), "nothing: Bad file descriptor");
}

// What is no longer true of packed weights: the canonical tensors are packed then.

TEST(packed_weights_of_another_version_are_left) {
  const SourceStack stack = small();
  for (const size_t field : {kVersionAt, kBackendAt, kContractAt})
    for (const int by : {1, 0x80}) {
      WITH("field ", field, " by ", by);
      StoredFile parts = with_packed("", stack);
      uint8_t &byte = parts.tensors["packed"].data[field];
      byte = static_cast<uint8_t>(byte + by);
      check_loads(parts, false, stack);
    }
}

TEST(canonical_tensors_that_were_changed_are_packed_anew) {
  const SourceStack stack = small();
  StoredFile parts = with_packed("", stack);
  parts.lstms[""]["packed_from"] = "\"0000000000000000\"";
  check_loads(parts, false, stack);
  for (const auto &[name, tensor] : with_packed("", stack).tensors) {
    if (name == "packed")
      continue;
    WITH("tensor ", name);
    StoredFile changed = with_packed("", stack);
    uint8_t &byte = changed.tensors[name].data.back();
    byte = static_cast<uint8_t>(byte ^ 1);
    check_packs_anew(changed, stack);
  }
}

TEST(other_precisions_of_the_same_tensors_are_packed_anew) {
  const SourceStack stack = random_stack(shape_of(7, 9), Weights::any, 205);
  StoredFile parts = with_packed("", stack);
  parts.lstms[""]["precision"] = R"({"weight_ih_l0":"int16","weight_hh_l0":"int8"})";
  check_packs_anew(parts, stack);
}

TEST(packed_weights_of_other_sizes_are_left) {
  const SourceStack stack = small();
  StoredFile parts = with_packed("", stack);
  parts.add_packed("", random_stack(shape_of(7, 9, 4, 1, 2), Weights::any, 206).packed());
  parts.lstms[""]["packed_from"] = with_packed("", stack).lstms[""]["packed_from"];
  check_loads(parts, false, stack);
}

// Damaged ones are refused, not overlooked.

void check_damaged(const std::string &message, const std::function<void(Bytes &)> &damage) {
  WITH("message ", message);
  StoredFile parts = with_packed("encoder", small());
  StoredTensor &packed = parts.tensors["encoder.packed"];
  damage(packed.data);
  packed.shape = {static_cast<int64_t>(packed.data.size())};
  const Bytes bytes = parts.bytes();
  CHECK_THROWS(Lstm::load(in_shared_memory(bytes), "encoder"),
               "somewhere: encoder.packed: packed weights: " + message);
  check_computes(Lstm::load(File::from_memory(bytes.data(), bytes.size()), "encoder"), small());
}

TEST(damaged_packed_weights_are_refused) {
  check_damaged("expected at least 64 bytes, got 0", [](Bytes &packed) { packed.clear(); });
  check_damaged("expected at least 64 bytes, got 63", [](Bytes &packed) { packed.resize(63); });
  check_damaged("bad magic number", [](Bytes &packed) { packed[0] = 'l'; });
  check_damaged("expected ", [](Bytes &packed) { packed.resize(packed.size() - 64); });
  check_damaged("expected ", [](Bytes &packed) { packed.resize(packed.size() + 64); });
  check_damaged("bias_l1_reverse: value of ", [](Bytes &packed) {
    const float infinity = float_of(0x7f800000);
    std::memcpy(&packed[packed.size() - sizeof infinity], &infinity, sizeof infinity);
  });
}

TEST(changed_words_are_refused_or_run_the_same_everywhere) {
  const SourceStack stack = random_stack(shape_of(5, 9, 3), Weights::any, 207);
  const StoredFile good = with_packed("", stack);
  int refused = 0, taken = 0;
  for (size_t at = 20; at < stack.packed().size(); at += 13) {
    StoredFile parts = good;
    uint8_t &byte = parts.tensors["packed"].data[at];
    byte = static_cast<uint8_t>(~byte);
    WITH("at ", at);
    const File file = in_shared_memory(parts.bytes());
    try {
      const Lstm lstm = Lstm::load(file);
      CHECK(lstm.shares_file() ? runs_the_same_everywhere(parts.tensors["packed"].data) : at < 64);
      ++taken;
    } catch (const Error &error) {
      CHECK(error.code() == ErrorCode::invalid_file);
      CHECK(std::string(error.what()).rfind("somewhere: packed: ", 0) == 0);
      ++refused;
    }
  }
  CHECK(refused > 10 && taken > 10);
}

TEST(a_mapped_file_that_is_cut_short_is_refused) {
  const Bytes whole = with_packed("", small()).bytes();
  const Folder folder;
  for (size_t bytes = 0; bytes < whole.size(); bytes += 97) {
    WITH("bytes ", bytes);
    const Bytes cut(whole.begin(), whole.begin() + static_cast<int64_t>(bytes));
    CHECK_THROWS(File::map(folder.write("cut", cut)), folder.path("cut") + ": ");
  }
}

} // namespace
} // namespace lstm_fastkernels
