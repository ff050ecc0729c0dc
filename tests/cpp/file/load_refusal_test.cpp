// Which tensors an LSTM takes from a file; malformed_test.cpp has what is wrong with single ones.
#include "check.h"
#include "lstm_fastkernels/file.h"
#include "stored.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

// Two layers and directions with projections, every block held.
StoredFile stored_as(const std::string &name, Precision precision, bool in_blocks) {
  SourceStack stack = random_stack(shape_of(5, 9, 3, 2, 2, precision), Weights::any, 81);
  if (in_blocks)
    stack.for_each_matrix([](SourceMatrix &m) {
      m.block = {8, 4};
      m.explicit_zeros = true;
    });
  StoredFile file;
  file.add(name, stack.held());
  load_all(file.bytes());
  return file;
}

// Calls test(file, prefix) with files of both kinds of weights.
template <class Test> void for_each_file(const Test &test) {
  for (Precision precision : {kInt8, kFloat32})
    for (bool in_blocks : {false, true}) {
      const std::string name = in_blocks == (precision == kInt8) ? "" : "model.encoder";
      WITH("precision ", precision_name(precision), " in blocks ", in_blocks, " name '", name, "'");
      test(stored_as(name, precision, in_blocks), name.empty() ? name : name + ".");
    }
}

// Refused after change(tensor).
template <class Change>
void check_tensor_refused(const StoredFile &file, const std::string &name, const Change &change,
                          const std::string &message) {
  WITH("tensor ", name);
  StoredFile bad = file;
  change(bad.tensors.at(name));
  check_refused(bad.bytes(), message);
}

TEST(a_refused_shape_is_told_beside_the_expected_one) {
  check_tensor_refused(
      stored_as("", kInt8, false), "weight_ih_l1",
      [](StoredTensor &t) { std::swap(t.shape[0], t.shape[1]); },
      "weight_ih_l1: expected I8 [36, 6], got I8 [6, 36]");
  check_tensor_refused(
      stored_as("", kInt16, true), "weight_hh_l0_values",
      [](StoredTensor &t) { t.shape = {8, 32}; },
      "weight_hh_l0_values: expected I8 [any, any, any], got I8 [8, 32]");
}

TEST(tensors_beside_an_lstm_are_overlooked) {
  StoredFile file = stored_as("model.encoder", kInt8, false);
  for (const char *name : {"model.encode", "model.encoder", "model.encoder2.x", "model.", "", "x"})
    file.tensors[name] = {"F64", {0}, {}};
  load_all(file.bytes());
}

TEST(biases_are_there_where_the_configuration_says_so) {
  for_each_file([](const StoredFile &file, const std::string &prefix) {
    StoredFile without = file;
    without.lstms.begin()->second["bias"] = "false";
    check_refused(without.bytes(), prefix + "bias_l0 does not belong to an LSTM of this");
    for (const char *suffix : {"_l0", "_l0_reverse", "_l1", "_l1_reverse"})
      without.tensors.erase(prefix + "bias" + suffix);
    load_all(without.bytes());
  });
}

TEST(a_matrix_without_any_block_loads) {
  for (Precision precision : kBlockPrecisions)
    for (const BlockShape &block : {BlockShape{8, 4}, BlockShape{65528, 65532}}) {
      StoredFile file = stored_as("", precision, true);
      const int64_t rows_of_blocks = (block.rows == 8 ? 8 : 4) + 1;
      file.tensors["weight_ih_l0_values"] = {
          precision == kFloat32 ? "F32" : "I8", {0, block.rows, block.columns}, {}};
      file.tensors["weight_ih_l0_col_indices"] = {"I32", {0}, {}};
      file.tensors["weight_ih_l0_crow_indices"] = {
          "I32", {rows_of_blocks}, Bytes(static_cast<size_t>(4 * rows_of_blocks))};
      load_all(file.bytes());
    }
}

} // namespace
} // namespace lstm_fastkernels
