// The configuration in a file: what is missing, mistyped, out of range or contradicts itself.
#include "check.h"
#include "lstm_fastkernels/file.h"
#include "stored.h"

namespace lstm_fastkernels {
namespace {

StoredFile good(Precision precision = kInt8, int64_t proj = 0) {
  return stored(random_stack(shape_of(3, 5, proj, 1, 1, precision), Weights::any, 71).held());
}

void check_configuration_refused(const std::string &configuration, const std::string &message) {
  std::string escaped;
  for (char c : configuration)
    escaped += c == '"' ? std::string("\\\"") : std::string(1, c);
  WITH("configuration ", configuration);
  check_refused(safetensors("{\"__metadata__\":{\"lstm_fastkernels\":\"" + escaped + "\"}}", {}),
                "metadata 'lstm_fastkernels'" + message);
}

// Where an option is another JSON text.
void check_option_refused(StoredFile file, const std::string &option, const std::string &text,
                          const std::string &message) {
  WITH(option, " ", text);
  load_all(file.bytes());
  file.lstms[""][option] = text;
  check_refused(file.bytes(), "LSTM '': " + message);
}

TEST(configurations_that_are_no_json_are_refused) {
  for (const char *text : {"", "{", "{]", "{\"format_version\":NaN}", "{}x"})
    check_configuration_refused(text, " is not JSON from byte ");
  check_configuration_refused("{}\\u0000", " is not JSON: it has a zero byte");
  check_configuration_refused(std::string(100'000, '['), " is nested too deeply");
  check_configuration_refused(R"({"format_version":1,"format_version":1})",
                              " has the key 'format_version' twice");
  check_configuration_refused(R"({"format_version":1,"lstms":{"a":{},"a":{}}})",
                              " has the key 'a' twice");
}

// What every configuration begins with.
const std::string kVersions = R"({"format_version":2,"numeric_contract":1)";

TEST(the_first_version_is_refused_with_advice) {
  StoredFile file = good();
  file.version = "1";
  check_refused(file.bytes(), "metadata 'lstm_fastkernels': format version 1 was made by an "
                              "unreleased version: convert the model again");
}

TEST(unknown_versions_are_refused_whatever_else_there_is) {
  for (const char *version : {"0", "3", "9223372036854775807"}) {
    check_configuration_refused(
        check::text("{\"format_version\":", version, ",\"lstms\":3}"),
        check::text(": format version ", version, "; this library reads version 2"));
    StoredFile file = good();
    file.version = version;
    check_refused(file.bytes(), "metadata 'lstm_fastkernels': format version ");
  }
}

TEST(configurations_without_versions_or_lstms_are_refused) {
  for (const char *text : {"[]", "3", "null", "\"\""})
    check_configuration_refused(text, " must be an object");
  check_configuration_refused("{\"lstms\":{}}", ": 'format_version' is missing");
  for (const char *version : {"true", "1.0", "\"1\"", "-1", "null", "1e0"})
    check_configuration_refused(check::text("{\"format_version\":", version, "}"),
                                ": 'format_version' must be an integer that is not negative");
  check_configuration_refused(kVersions + "}", ": 'lstms' is missing");
  for (const char *lstms : {"[]", "3", "null", "{}"})
    check_configuration_refused(check::text(kVersions, ",\"lstms\":", lstms, "}"),
                                ": 'lstms' must be an object of at least one LSTM");
}

TEST(lstms_that_are_no_objects_are_refused) {
  for (const char *text : {"[]", "3", "null"})
    check_refused(
        safetensors(
            check::text(
                R"({"__metadata__":{"lstm_fastkernels":"{\"format_version\":2,\"numeric_contract\":1,)",
                R"(\"lstms\":{\"a\":)", text, "}}\"}}"),
            {}),
        "LSTM 'a' must be an object");
}

TEST(every_option_must_be_there) {
  const StoredFile file = good();
  CHECK(file.lstms.at("").size() == 12);
  for (const auto &[option, value] : file.lstms.at("")) {
    StoredFile bad = file;
    bad.lstms[""].erase(option);
    check_refused(bad.bytes(), "LSTM '': '" + option + "' is missing");
  }
}

TEST(options_nobody_knows_are_overlooked) {
  StoredFile file = good();
  file.lstms[""]["new"] = "{\"a\":[1,null]}";
  load_all(file.bytes());
}

TEST(sizes_that_are_no_integers_are_refused) {
  for (const char *option : {"input_size", "hidden_size", "num_layers", "proj_size"})
    for (const char *value : {"true", "\"5\"", "5.0", "-1", "null", "[5]", "5e0",
                              "9223372036854775808", "-9223372036854775808"})
      check_option_refused(good(), option, value,
                           check::text("'", option, "' must be an integer that is not negative"));
}

TEST(sizes_out_of_range_are_refused) {
  for (const char *value : {"0", "65536", "4294967296", "9223372036854775807"}) {
    check_option_refused(good(), "input_size", value, "input_size must be in 1..65535");
    check_option_refused(good(), "hidden_size", value, "hidden_size must be in 1..65535");
  }
  for (const char *value : {"0", "1025", "4294967297"})
    check_option_refused(good(), "num_layers", value, "num_layers must be in 1..1024");
  for (const char *value : {"5", "6", "9223372036854775807"})
    check_option_refused(good(kInt8, 4), "proj_size", value, "proj_size must be in 0..4");
  StoredFile wide = good();
  wide.lstms[""]["hidden_size"] = "32768";
  wide.lstms[""]["num_layers"] = "2";
  wide.lstms[""]["bidirectional"] = "true";
  check_refused(wide.bytes(), "LSTM '': num_directions * output size must be in 1..65535");
}

TEST(options_of_other_types_are_refused) {
  for (const char *option : {"bias", "batch_first", "bidirectional"})
    for (const char *value : {"0", "1", "null", "\"true\""})
      check_option_refused(good(), option, value,
                           check::text("'", option, "' must be true or false"));
  for (const char *option : {"class", "layout"})
    for (const char *value : {"8", "null", "[\"int8\"]"})
      check_option_refused(good(), option, value, check::text("'", option, "' must be a string"));
}

TEST(unknown_words_are_refused) {
  for (const char *word : {"LSTM", "fastquantlstm", "", "FastQuantLSTM "})
    check_option_refused(good(), "class", check::text("\"", word, "\""),
                         check::text("unknown class '", word, "'"));
  for (const char *word : {"sparse", "Dense", ""})
    check_option_refused(good(), "layout", check::text("\"", word, "\""),
                         "'layout' must be auto, dense or block_sparse, got '");
}

TEST(precisions_are_of_all_matrices_and_known) {
  const auto refused = [](const std::string &json, const std::string &message) {
    check_option_refused(good(), "precision", json, message);
  };
  refused("8", "'precision' must be an object");
  refused("{}", "'precision': 'weight_ih_l0' is missing");
  refused(R"({"weight_ih_l0":"int8"})", "'precision': 'weight_hh_l0' is missing");
  refused(R"({"weight_ih_l0":8,"weight_hh_l0":"int8"})",
          "'precision': 'weight_ih_l0' must be a string");
  refused(R"({"weight_ih_l0":"int8","weight_hh_l0":"int8","weight_hr_l0":"int8"})",
          "'precision' names 3 matrices, the LSTM has 2");
  for (const char *word : {"int4", "INT8", ""})
    refused(check::text(R"({"weight_ih_l0":"int8","weight_hh_l0":")", word, "\"}"),
            check::text("precision must be one of: int8, int16, float32; got '", word, "'"));
}

TEST(sparse_classes_are_float32) {
  for (const char *name : {"FastSparseLSTM", "FastSparseLSTMCell"})
    for (Precision precision : {kInt8, kInt16})
      check_option_refused(good(precision), "class", check::text("\"", name, "\""),
                           check::text("a ", name, " has float32 matrices alone"));
}

TEST(other_contracts_are_refused) {
  StoredFile file = good();
  for (const char *contract : {"0", "2", "99"}) {
    file.contract = contract;
    check_refused(file.bytes(), check::text("metadata 'lstm_fastkernels': numeric contract ",
                                            contract, "; this library computes contract 1"));
  }
}

TEST(dropout_is_a_number_in_0_to_1) {
  for (const char *value : {"true", "\"0\"", "null", "-0.1", "1.1", "-1", "2", "1e300"})
    check_option_refused(good(), "dropout", value, "'dropout' must be a number in 0..1");
  for (const char *value : {"0", "1", "0.5", "1e-300", "-0.0"}) {
    StoredFile file = good();
    file.lstms[""]["dropout"] = value;
    load_all(file.bytes());
  }
}

TEST(block_sizes_are_two_that_kernels_know) {
  for (const char *value : {"8", "null", "[]", "[8]", "[8,4,1]", "[8.0,4]", "[\"8\",4]", "[0,4]",
                            "[8,0]", "[12,4]", "[8,6]", "[-8,4]", "[65536,4]", "[8,65536]"})
    check_option_refused(good(), "block_size", value,
                         "'block_size' must be a multiple of 8 and a multiple of 4, up to 65535");
  StoredFile largest = good();
  largest.lstms[""]["block_size"] = "[65528,65532]";
  load_all(largest.bytes());
}

TEST(cells_have_one_layer_and_direction) {
  StoredFile cell = good();
  cell.lstms[""]["class"] = "\"FastQuantLSTMCell\"";
  for (const auto &[option, value] : {std::pair<const char *, const char *>{"num_layers", "2"},
                                      {"bidirectional", "true"},
                                      {"proj_size", "2"},
                                      {"batch_first", "true"},
                                      {"dropout", "0.5"}})
    check_option_refused(cell, option, value, "a cell has one layer and direction");
}

TEST(lstms_inside_others_are_refused) {
  const HeldStack stack = random_stack(shape_of(3, 5), Weights::any, 72).held();
  for (const auto &[outer, inner] : {std::pair<const char *, const char *>{"", "a"},
                                     {"a", "a.b"},
                                     {"a", "a."},
                                     {"a.b", "a.b.c.d"}}) {
    StoredFile file = stored(stack);
    file.lstms.clear();
    for (const char *name : {outer, inner, "a-", "a-b"})
      if (*outer || name == outer || name == inner)
        file.add(name, stack);
    check_refused(file.bytes(), check::text("LSTM '", inner, "' lies inside LSTM '", outer, "'"));
  }
}

TEST(lstms_of_similar_names_are_beside_each_other) {
  StoredFile file;
  for (const char *name : {"a", "a-", "ab", "a-b.c", "b.a"})
    file.add(name, random_stack(shape_of(3, 5), Weights::any, 73).held());
  load_all(file.bytes());
}

} // namespace
} // namespace lstm_fastkernels
