// Files in order whose tensors are not those of the LSTM that the configuration speaks of.
#include <limits>

#include "check.h"
#include "lstm_fastkernels/file.h"
#include "stored.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

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

bool ends_with(const std::string &text, const std::string &end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

TEST(no_tensor_may_be_missing) {
  for_each_file([](const StoredFile &file, const std::string &) {
    for (const auto &[name, tensor] : file.tensors) {
      WITH("without ", name);
      StoredFile bad = file;
      bad.tensors.erase(name);
      // Without values, a matrix is taken for a dense one.
      const std::string end = "_values";
      check_refused(bad.bytes(),
                    (ends_with(name, end) ? name.substr(0, name.size() - end.size()) : name) +
                        " is missing");
    }
  });
}

TEST(tensors_of_other_types_are_refused) {
  for_each_file([](const StoredFile &file, const std::string &) {
    for (const auto &[name, tensor] : file.tensors)
      for (const char *dtype : {"U8", "BOOL", "F8_E4M3", "F32", "I32", "U32"}) {
        const int64_t size = tensor.dtype == "I8" ? 1 : 4;
        if (dtype == tensor.dtype || size != (dtype[1] == '3' ? 4 : 1))
          continue;
        check_tensor_refused(
            file, name, [&](StoredTensor &t) { t.dtype = dtype; },
            name + ": expected " + tensor.dtype + " [");
      }
  });
}

TEST(tensors_of_other_shapes_are_refused) {
  for_each_file([](const StoredFile &file, const std::string &) {
    for (const auto &[name, tensor] : file.tensors) {
      const std::string message = name + ": expected " + tensor.dtype + " [";
      check_tensor_refused(file, name, [](StoredTensor &t) { t.shape.push_back(1); }, message);
      check_tensor_refused(
          file, name, [](StoredTensor &t) { t.shape.insert(t.shape.begin(), 1); }, message);
      check_tensor_refused(
          file, name,
          [](StoredTensor &t) {
            t.shape = {0};
            t.data.clear();
          },
          message);
      if (tensor.shape.size() < 3) // values may have any
        check_tensor_refused(
            file, name,
            [](StoredTensor &t) {
              const int64_t row = static_cast<int64_t>(t.data.size()) / t.shape[0]++;
              t.data.resize(t.data.size() + static_cast<size_t>(row));
            },
            message);
    }
  });
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

TEST(tensors_that_are_too_many_are_refused) {
  const StoredTensor more{"U8", {0}, {}};
  for_each_file([&](const StoredFile &file, const std::string &prefix) {
    for (const char *name :
         {"more", "weight_ih", "weight_ih_l2", "bias_l0_scale", "a.b", ".", ""}) {
      if (prefix.empty() && !*name)
        continue; // the name of no tensor below it
      StoredFile bad = file;
      bad.tensors[prefix + name] = more;
      check_refused(bad.bytes(), prefix + name + " does not belong to an LSTM of this");
    }
  });
}

TEST(tensors_beside_an_lstm_are_overlooked) {
  StoredFile file = stored_as("model.encoder", kInt8, false);
  for (const char *name : {"model.encode", "model.encoder", "model.encoder2.x", "model.", "", "x"})
    file.tensors[name] = {"F64", {0}, {}};
  load_all(file.bytes());
}

TEST(matrices_that_are_dense_and_in_blocks_are_refused) {
  for (Precision precision : kPrecisions) {
    StoredFile both = stored_as("", precision, false);
    const StoredFile blocks = stored_as("", precision, true);
    both.tensors.insert(blocks.tensors.begin(), blocks.tensors.end());
    check_refused(both.bytes(), "weight_hh_l0 does not belong to an LSTM of this configuration");
  }
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

TEST(the_smallest_weight_is_refused) {
  for_each_file([](const StoredFile &file, const std::string &) {
    for (const auto &[name, tensor] : file.tensors)
      if (tensor.dtype == "I8")
        check_tensor_refused(
            file, name, [](StoredTensor &t) { t.data[0] = 0x80; },
            name.substr(0, name.find("_values")) + ": weights must be in [-127, 127], got -128");
  });
}

TEST(numbers_that_are_not_finite_are_refused) {
  for_each_file([](const StoredFile &file, const std::string &) {
    for (const auto &[name, tensor] : file.tensors) {
      if (tensor.dtype != "F32")
        continue;
      const bool is_scale = ends_with(name, "_scale");
      const std::string matrix = name.substr(0, is_scale ? name.size() - 6 : name.find("_values"));
      const std::string what = name.find("bias") != std::string::npos ? " must be finite"
                               : is_scale ? ": scales must be finite and not negative, row 1 is not"
                                          : ": weights must be finite, row 0 is not";
      for (float bad : {kNan, kInfinity, -kInfinity, -1.0f})
        if (is_scale || bad != -1)
          check_tensor_refused(file, name, [&](StoredTensor &t) { t.put(1, bad); }, matrix + what);
    }
  });
}

TEST(block_indices_that_lead_nowhere_are_refused) {
  for (Precision precision : kPrecisions)
    for (int32_t far :
         {-1, 1000, std::numeric_limits<int32_t>::max(), std::numeric_limits<int32_t>::min()})
      for (const char *matrix : {"weight_ih_l0", "weight_hh_l1_reverse", "weight_hr_l1"}) {
        WITH("precision ", precision_name(precision), " index ", far);
        const StoredFile file = stored_as("a", precision, true);
        const std::string name = check::text("a.", matrix);
        check_tensor_refused(
            file, name + "_crow_indices", [&](StoredTensor &t) { t.put(0, far); },
            name + "_crow_indices must start with 0");
        check_tensor_refused(
            file, name + "_crow_indices", [&](StoredTensor &t) { t.put(1, far); },
            name + "_crow_indices must not decrease nor exceed");
        check_tensor_refused(
            file, name + "_col_indices", [&](StoredTensor &t) { t.put(0, far); },
            name + "_col_indices must be in 0..");
      }
}

TEST(weights_in_the_padding_of_a_file_are_refused) {
  for (Precision precision : kPrecisions)
    for (const char *matrix : {"weight_ih_l0", "weight_hh_l1_reverse", "weight_hr_l1"})
      check_tensor_refused(
          stored_as("a", precision, true), check::text("a.", matrix, "_values"),
          [](StoredTensor &t) { t.data.back() = 1; },
          check::text("a.", matrix, "_values must be zero in the padding"));
}

// Whose values take no bytes: nothing but the sizes says that they are impossible.
TEST(blocks_of_no_bytes_have_possible_sizes) {
  constexpr int64_t kHuge = int64_t{1} << 62, kMany = int64_t{1} << 57;
  const std::string rows = ": blocks must have 1..65535 rows",
                    shape = ": blocks must have a multiple of 8 rows";
  const struct {
    std::vector<int64_t> values;
    std::string message;
  } cases[] = {{{0, 0, 4}, rows},
               {{0, kHuge, 4}, rows},
               {{0, 65536, 4}, rows},
               {{kMany, 0, 4}, rows},
               {{0, 0, kHuge}, rows},
               {{0, 8, 0}, shape},
               {{0, 8, kHuge}, shape},
               {{0, 8, 65536}, shape},
               {{0, 12, 4}, shape},
               {{kMany, 8, 0}, "_col_indices: expected I32 [144115188075855872], got I32 [0]"}};
  for (Precision precision : {kInt8, kFloat32})
    for (const auto &[values, message] : cases) {
      WITH("precision ", precision_name(precision), " values [", values[0], ", ", values[1], ", ",
           values[2], "]");
      StoredFile file = stored_as("", precision, true);
      const int64_t row = values[1], of_a_gate = row > 0 && row < 100 ? (9 + row - 1) / row : 1;
      const int64_t rows_of_blocks = 4 * of_a_gate + 1;
      file.tensors["weight_ih_l0_values"] = {precision == kInt8 ? "I8" : "F32", values, {}};
      file.tensors["weight_ih_l0_col_indices"] = {"I32", {0}, {}};
      file.tensors["weight_ih_l0_crow_indices"] = {
          "I32", {rows_of_blocks}, Bytes(static_cast<size_t>(4 * rows_of_blocks))};
      check_refused(file.bytes(), "weight_ih_l0" + message);
    }
}

TEST(a_matrix_without_any_block_loads) {
  for (Precision precision : kPrecisions)
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

// A small file that asks for gigabytes: layers without any block, block rows as high as they can
// be.
TEST(sizes_that_the_tensors_do_not_bear_out_are_refused) {
  const auto empty_stack = [](int64_t hidden, int64_t layers) {
    HeldStack held;
    held.shape = shape_of(hidden, hidden, 0, layers, 1, kFloat32);
    held.layers.resize(static_cast<size_t>(layers));
    for (HeldLayer &layer : held.layers)
      for (HeldMatrix *m : {&layer.ih, &layer.hh}) {
        m->precision = kFloat32;
        m->block = {65528, 65532};
        m->crow.assign(static_cast<size_t>(4 * ((hidden + 65527) / 65528) + 1), 0);
      }
    return stored(held).bytes();
  };
  load_all(empty_stack(1000, 10));
  check_refused(empty_stack(65535, 20), "the LSTM's sizes are not possible with tensors of 1440");
}

} // namespace
} // namespace lstm_fastkernels
