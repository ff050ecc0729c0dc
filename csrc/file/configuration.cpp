#include "file/configuration.h"

#include <map>

#include "file/json.h"

namespace lstm_fastkernels {
namespace {

using nlohmann::json;

constexpr int64_t kLargestBlock = 65535;

struct Class {
  bool floats_only, is_cell;
};

const Class &class_of(const std::string &class_name, const std::string &what) {
  static const std::map<std::string, Class> classes = {{"FastQuantLSTM", {false, false}},
                                                       {"FastQuantLSTMCell", {false, true}},
                                                       {"FastSparseLSTM", {true, false}},
                                                       {"FastSparseLSTMCell", {true, true}}};
  const auto found = classes.find(class_name);
  if (found == classes.end())
    refuse_file(what + ": unknown class '" + class_name + "'");
  return found->second;
}

// Of each matrix, which all must be there.
std::vector<Precision> precisions(const json &named, const LstmShape &shape) {
  const std::string own = "'precision'";
  if (!named.is_object())
    refuse_file(own + " must be an object");
  std::vector<Precision> all;
  for (const MatrixName &matrix : matrix_names(shape))
    all.push_back(precision_from(text(named, matrix.name.c_str(), own)));
  if (named.size() != all.size())
    refuse_file(own + " names " + std::to_string(named.size()) + " matrices, the LSTM has " +
                std::to_string(all.size()));
  return all;
}

double dropout(const json &from, const std::string &what) {
  const json &value = member(from, "dropout", what);
  if (!value.is_number() || !(value.get<double>() >= 0 && value.get<double>() <= 1))
    refuse_file(what + ": 'dropout' must be a number in 0..1");
  return value.get<double>();
}

// How weights that the module is given later are rounded and laid out.
void check_later_weights(const json &from, const std::string &what) {
  const json &pair_safe = member(from, "pair_safe", what);
  if (!pair_safe.is_boolean() && pair_safe != "auto")
    refuse_file(what + ": 'pair_safe' must be \"auto\", true or false");
  const int64_t group_size = integer(from, "group_size", what);
  if (!is_group_size(group_size))
    refuse_file(what + ": 'group_size' must be 32, 64 or 128, got " + std::to_string(group_size));
  const std::string layout = text(from, "layout", what);
  if (layout != "auto" && layout != "dense" && layout != "block_sparse")
    refuse_file(what + ": 'layout' must be auto, dense or block_sparse, got '" + layout + "'");
  const json &block = member(from, "block_size", what);
  const auto fits = [&](size_t i, int64_t unit) {
    return is_size(block[i]) && block[i] >= unit && block[i] <= kLargestBlock &&
           block[i].get<int64_t>() % unit == 0;
  };
  if (!block.is_array() || block.size() != 2 || !fits(0, 8) || !fits(1, 4))
    refuse_file(what + ": 'block_size' must be a multiple of 8 and a multiple of 4, up to " +
                std::to_string(kLargestBlock));
}

// "" where it is not there.
std::string packed_from(const json &from, const std::string &what) {
  if (!from.contains("packed_from"))
    return "";
  const std::string hash = text(from, "packed_from", what);
  if (hash.size() != 16 || hash.find_first_not_of("0123456789abcdef") != hash.npos)
    refuse_file(what + ": 'packed_from' must be 16 hexadecimal digits");
  return hash;
}

} // namespace

LstmConfiguration read_configuration(const json &from, const std::string &what) {
  LstmConfiguration c;
  c.class_name = text(from, "class", what);
  c.shape.input_size = integer(from, "input_size", what);
  c.shape.hidden_size = integer(from, "hidden_size", what);
  c.shape.proj_size = integer(from, "proj_size", what);
  c.shape.num_layers = integer(from, "num_layers", what);
  c.shape.num_directions = boolean(from, "bidirectional", what) ? 2 : 1;
  c.bias = boolean(from, "bias", what);
  c.batch_first = boolean(from, "batch_first", what);
  c.packed_from = packed_from(from, what);
  const double idle = dropout(from, what);
  check_later_weights(from, what);
  const json &named = member(from, "precision", what);
  const Class &of = class_of(c.class_name, what);
  try {
    validate(c.shape);
    if (of.is_cell && (c.shape.num_cells() != 1 || c.shape.proj_size || c.batch_first || idle != 0))
      refuse_file("a cell has one layer and direction, no projection, no dropout, and is not "
                  "batch_first");
    c.precisions = precisions(named, c.shape);
    takes_ids(c.shape, c.precisions); // throws where there cannot be a table
  } catch (const Error &error) {
    refuse_file(what + ": " + error.what());
  }
  for (const Precision precision : c.precisions)
    if (of.floats_only && precision != precision_from("float32"))
      refuse_file(what + ": a " + c.class_name + " has no '" +
                  std::string(precision_name(precision)) + "' matrices");
  return c;
}

} // namespace lstm_fastkernels
