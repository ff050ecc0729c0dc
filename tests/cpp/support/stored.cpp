#include "stored.h"

#include <algorithm>
#include <fstream>
#include <iterator>

#include "check.h"
#include "guarded.h"
#include "weights/packed_origin.h"

namespace lstm_fastkernels {
namespace {

std::string quoted(const std::string &text) {
  std::string result = "\"";
  for (char c : text)
    result += c == '"' || c == '\\' ? std::string("\\") + c : std::string(1, c);
  return result + "\"";
}

// [items] or {items}, each of which text(item) writes.
template <class Items, class Text>
std::string joined(char open, const Items &items, const Text &text, char close) {
  std::string result(1, open);
  for (const auto &item : items)
    result += (result.size() == 1 ? "" : ",") + text(item);
  return result + close;
}

template <class T> StoredTensor tensor(const char *dtype, const std::vector<T> &values) {
  return {dtype, {static_cast<int64_t>(values.size())}, bytes_of(values)};
}

const HeldMatrix &matrix_of(const HeldStack &stack, const MatrixName &of) {
  const HeldLayer &layer = stack.layers[static_cast<size_t>(of.cell)];
  return of.kind == MatrixKind::ih ? layer.ih : of.kind == MatrixKind::hh ? layer.hh : layer.hr;
}

StoredOptions options_of(const HeldStack &stack) {
  const LstmShape &shape = stack.shape;
  const std::vector<MatrixName> names = matrix_names(shape);
  const bool is_float = std::all_of(names.begin(), names.end(), [&](const MatrixName &of) {
    return matrix_of(stack, of).precision == kFloat32;
  });
  const auto precision = [&](const MatrixName &of) {
    return quoted(of.name) + ":" +
           quoted(std::string(precision_name(matrix_of(stack, of).precision)));
  };
  const auto boolean = [](bool value) { return value ? "true" : "false"; };
  return {{"class", quoted(is_float ? "FastSparseLSTM" : "FastQuantLSTM")},
          {"input_size", std::to_string(shape.input_size)},
          {"hidden_size", std::to_string(shape.hidden_size)},
          {"num_layers", std::to_string(shape.num_layers)},
          {"bias", boolean(!stack.layers.front().bias.empty())},
          {"batch_first", "false"},
          {"dropout", "0.0"},
          {"bidirectional", boolean(shape.num_directions == 2)},
          {"proj_size", std::to_string(shape.proj_size)},
          {"precision", joined('{', names, precision, '}')},
          {"pair_safe", quoted("auto")},
          {"group_size", "64"},
          {"layout", quoted("auto")},
          {"block_size", "[8,4]"}};
}

} // namespace

Bytes safetensors(const std::string &header, const Bytes &data) {
  Bytes file;
  for (int i = 0; i < 8; ++i)
    file.push_back(static_cast<uint8_t>(uint64_t{header.size()} >> 8 * i));
  file.insert(file.end(), header.begin(), header.end());
  file.insert(file.end(), data.begin(), data.end());
  return file;
}

void StoredFile::add(const std::string &name, const HeldStack &stack) {
  const LstmShape &shape = stack.shape;
  const std::string prefix = name.empty() ? "" : name + ".";
  const auto add_part = [&](const std::string &own, const HeldMatrix &m, int64_t rows,
                            int64_t columns) {
    const std::string all = prefix + own;
    if (is_table(m.precision)) {
      StoredTensor table = m.halves.empty() ? tensor("F32", m.floats) : tensor("F16", m.halves);
      table.shape = {columns, rows};
      tensors[all + "_table"] = table;
      return;
    }
    const bool int4 = m.precision == kInt4;
    StoredTensor weights =
        m.scales.empty() ? tensor("F32", m.floats) : tensor(int4 ? "U8" : "I8", m.integers);
    if (!m.scales.empty())
      tensors[all + "_scale"] = tensor("F32", m.scales);
    if (int4)
      tensors[all + "_scale"].shape = {rows, static_cast<int64_t>(m.scales.size()) / rows};
    if (m.crow.empty()) {
      weights.shape = {rows, int4 ? (columns + 1) / 2 : columns};
      tensors[all] = weights;
      return;
    }
    weights.shape = {static_cast<int64_t>(m.col.size()), m.block.rows, m.block.columns};
    tensors[all + "_values"] = weights;
    tensors[all + "_crow_indices"] = tensor("I32", m.crow);
    tensors[all + "_col_indices"] = tensor("I32", m.col);
  };
  for (const MatrixName &of : matrix_names(shape)) {
    const HeldMatrix &m = matrix_of(stack, of);
    add_part(m.rank ? of.name + "_u" : of.name, m, of.rows, m.rank ? m.rank : of.columns);
    if (m.rank)
      add_part(of.name + "_v", m.v.front(), m.rank, of.columns);
  }
  for (int64_t cell = 0; cell < shape.num_cells(); ++cell) {
    const std::vector<float> &bias = stack.layers[static_cast<size_t>(cell)].bias;
    if (!bias.empty())
      tensors[prefix + "bias" + cell_suffix(shape, cell)] = tensor("F32", bias);
  }
  lstms[name] = options_of(stack);
}

void StoredFile::add_packed(const std::string &name, const Bytes &packed) {
  const std::string prefix = name.empty() ? "" : name + ".";
  std::map<std::string, TensorView> views;
  tensors.erase(prefix + "packed");
  for (const auto &[full_name, tensor] : tensors)
    if (full_name.rfind(prefix, 0) == 0) {
      const std::string own = full_name.substr(prefix.size());
      views[own] = {own, tensor.dtype, tensor.shape, tensor.data.data(), tensor.data.size()};
    }
  tensors[prefix + "packed"] = {"U8", {static_cast<int64_t>(packed.size())}, packed};
  lstms[name]["packed_from"] = quoted(hash_of(views));
}

std::string StoredFile::entry(const std::string &name) const {
  size_t begin = 0;
  for (auto before = tensors.begin(); before->first != name; ++before)
    begin += before->second.data.size();
  const StoredTensor &t = tensors.at(name);
  const auto number = [](int64_t n) { return std::to_string(n); };
  return quoted(name) + ":{\"dtype\":" + quoted(t.dtype) +
         ",\"shape\":" + joined('[', t.shape, number, ']') + ",\"data_offsets\":[" +
         std::to_string(begin) + "," + std::to_string(begin + t.data.size()) + "]}";
}

std::string StoredFile::configuration() const {
  const auto option = [](const auto &o) { return quoted(o.first) + ":" + o.second; };
  const auto lstm = [&](const auto &l) {
    return quoted(l.first) + ":" + joined('{', l.second, option, '}');
  };
  return "{\"format_version\":" + version + ",\"numeric_contract\":" + contract +
         ",\"lstms\":" + joined('{', lstms, lstm, '}') + "}";
}

std::string StoredFile::header() const {
  std::vector<std::string> entries;
  for (const auto &[name, tensor] : tensors)
    entries.push_back(entry(name));
  entries.push_back("\"__metadata__\":{\"maker\":\"a test\",\"lstm_fastkernels\":" +
                    quoted(configuration()) + "}");
  return joined('{', entries, [](const std::string &text) { return text; }, '}');
}

Bytes StoredFile::data() const {
  Bytes all;
  for (const auto &[name, tensor] : tensors)
    all.insert(all.end(), tensor.data.begin(), tensor.data.end());
  return all;
}

StoredFile stored(const HeldStack &stack) {
  StoredFile file;
  file.add("", stack);
  return file;
}

File in_shared_memory(const Bytes &bytes) {
  const auto memory = std::make_shared<const Guarded<uint8_t>>(bytes);
  return File::from_memory(std::shared_ptr<const void>(memory, memory->data()), bytes.size(),
                           "somewhere");
}

void load_all(const Bytes &bytes) {
  const Guarded<uint8_t> memory(bytes);
  for (const File &file :
       {File::from_memory(memory.data(), bytes.size(), "somewhere"), in_shared_memory(bytes)})
    for (const std::string &name : file.lstm_names())
      Lstm::load(file, name);
}

void check_refused(const Bytes &file, const std::string &message) {
  try {
    load_all(file);
  } catch (const Error &error) {
    WITH("message ", error.what(), " not ", message);
    CHECK(error.code() == ErrorCode::invalid_file);
    CHECK(std::string(error.what()).rfind("somewhere: " + message, 0) == 0);
    return;
  }
  WITH("message ", message);
  CHECK(!"refused");
}

std::string test_path(const std::string &name) { return LSTM_FASTKERNELS_TESTS + ("/" + name); }

Bytes read_bytes(const std::string &path) {
  std::ifstream in(path, std::ios::binary);
  CHECK(in.good());
  return Bytes(std::istreambuf_iterator<char>(in), {});
}

} // namespace lstm_fastkernels
