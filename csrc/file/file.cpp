// safetensors: the length of a JSON header as 8 little-endian bytes, the header, the tensors.
#include "lstm_fastkernels/file.h"

#include <algorithm>
#include <limits>

#include "file/configuration.h"
#include "file/disk.h"
#include "file/json.h"

namespace lstm_fastkernels {
namespace {

using nlohmann::json;

constexpr size_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000; // as the safetensors library has it
constexpr char kMetadata[] = "__metadata__";
constexpr char kOurKey[] = "lstm_fastkernels";
constexpr char kPacked[] = "packed";
constexpr int64_t kFormatVersion = 2;

// 0 for an unknown one.
int64_t element_bytes(const std::string &dtype) {
  static const std::map<std::string, int64_t> sizes = {
      {"BOOL", 1},    {"U8", 1},          {"I8", 1},          {"F8_E5M2", 1}, {"F8_E4M3", 1},
      {"F8_E8M0", 1}, {"F8_E5M2FNUZ", 1}, {"F8_E4M3FNUZ", 1}, {"I16", 2},     {"U16", 2},
      {"F16", 2},     {"BF16", 2},        {"I32", 4},         {"U32", 4},     {"F32", 4},
      {"I64", 8},     {"U64", 8},         {"F64", 8},         {"C64", 8},
  };
  const auto found = sizes.find(dtype);
  return found == sizes.end() ? 0 : found->second;
}

struct Entry {
  std::string dtype;
  std::vector<int64_t> shape;
  int64_t begin, end; // in the data behind the header
};

// The bytes of a tensor, or -1 where they overflow.
int64_t tensor_bytes(const Entry &entry) {
  int64_t bytes = element_bytes(entry.dtype);
  for (const int64_t size : entry.shape)
    if (__builtin_mul_overflow(bytes, size, &bytes))
      return -1;
  return bytes;
}

Entry read_entry(const json &value, const std::string &name) {
  Entry entry{text(value, "dtype", name), {}, 0, 0};
  if (!element_bytes(entry.dtype))
    refuse_file(name + ": unknown dtype '" + entry.dtype + "'");
  const json &shape = member(value, "shape", name), &offsets = member(value, "data_offsets", name);
  if (!shape.is_array() || !std::all_of(shape.begin(), shape.end(), is_size))
    refuse_file(name + ": 'shape' must hold integers that are not negative");
  if (!offsets.is_array() || offsets.size() != 2 || !is_size(offsets[0]) || !is_size(offsets[1]))
    refuse_file(name + ": 'data_offsets' must hold two integers that are not negative");
  entry.shape = shape.get<std::vector<int64_t>>();
  entry.begin = offsets[0].get<int64_t>();
  entry.end = offsets[1].get<int64_t>();
  const int64_t bytes = tensor_bytes(entry);
  if (bytes < 0)
    refuse_file(name + ": its shape is too large");
  if (entry.end < entry.begin || entry.end - entry.begin != bytes)
    refuse_file(name + ": its shape takes " + std::to_string(bytes) +
                " bytes, 'data_offsets' are " + std::to_string(entry.begin) + " and " +
                std::to_string(entry.end));
  return entry;
}

void check_size(size_t bytes, const std::string &name) {
  if (bytes > static_cast<size_t>(std::numeric_limits<std::ptrdiff_t>::max()))
    throw Error(ErrorCode::invalid_argument,
                name + ": no memory has " + std::to_string(bytes) + " bytes");
}

} // namespace

struct File::Contents {
  std::string name;
  // What holds the bytes, unless they are the caller's: memory of its own, or memory that LSTMs may
  // share, which may be a mapping.
  std::vector<uint8_t> owned;
  std::shared_ptr<const void> shared;
  std::shared_ptr<const Mapping> mapping;
  const uint8_t *data = nullptr; // behind the header
  int64_t data_bytes = 0;
  std::map<std::string, Entry, std::less<>> entries;
  std::map<std::string, std::string> metadata;
  std::map<std::string, LstmConfiguration, std::less<>> lstms;

  Contents(std::string of, const uint8_t *file, size_t bytes) : name(std::move(of)) {
    uint64_t header_bytes = 0;
    if (bytes < kLengthBytes)
      refuse_file(name + ": too short for a safetensors file, " + std::to_string(bytes) + " bytes");
    for (size_t i = kLengthBytes; i-- > 0;)
      header_bytes = header_bytes << 8 | file[i];
    if (header_bytes > kMaxHeaderBytes || header_bytes > bytes - kLengthBytes)
      refuse_file(name + ": not a safetensors file, or cut short: its header takes " +
                  std::to_string(header_bytes) + " bytes, the file has " +
                  std::to_string(bytes - kLengthBytes) + " behind its length");
    data = file + kLengthBytes + header_bytes;
    data_bytes = static_cast<int64_t>(bytes - kLengthBytes - header_bytes);
    const std::string_view header(reinterpret_cast<const char *>(file) + kLengthBytes,
                                  static_cast<size_t>(header_bytes));
    if (header.substr(0, 1) != "{")
      refuse_file(name + ": not a safetensors file: its header must start with '{'");
    read_header(parse_json(header, name + ": the header"));
  }

private:
  void read_header(const json &header) {
    for (const auto &[key, value] : header.items())
      if (key == kMetadata)
        read_metadata(value);
      else
        entries.emplace(key, read_entry(value, name + ": " + key));
    check_offsets();
    const auto ours = metadata.find(kOurKey);
    if (ours == metadata.end())
      return;
    read_lstms(ours->second);
    metadata.erase(ours);
  }

  // Tensors lie one behind the other and fill the file.
  void check_offsets() const {
    std::vector<std::pair<const std::string, Entry> const *> order;
    for (const auto &entry : entries)
      order.push_back(&entry);
    std::sort(order.begin(), order.end(), [](const auto *a, const auto *b) {
      return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
    });
    int64_t expected = 0;
    for (const auto *entry : order) {
      const std::string tensor = name + ": " + entry->first;
      if (entry->second.end > data_bytes)
        refuse_file(tensor + ": ends at byte " + std::to_string(entry->second.end) +
                    " of the data, which has " + std::to_string(data_bytes));
      if (entry->second.begin < expected)
        refuse_file(tensor + ": overlaps another tensor at byte " +
                    std::to_string(entry->second.begin) + " of the data");
      if (entry->second.begin > expected)
        refuse_file(tensor + ": begins at byte " + std::to_string(entry->second.begin) +
                    " of the data, the tensor before it ends at " + std::to_string(expected));
      expected = entry->second.end;
    }
    if (expected != data_bytes)
      refuse_file(name + ": its tensors end at byte " + std::to_string(expected) +
                  " of the data, which has " + std::to_string(data_bytes));
  }

  void read_metadata(const json &values) {
    const std::string what = name + ": " + kMetadata;
    if (!values.is_object())
      refuse_file(what + " must be an object");
    for (const auto &[key, value] : values.items()) {
      if (!value.is_string())
        refuse_file(what + ": '" + key + "' must be a string");
      metadata.emplace(key, value.get<std::string>());
    }
  }

  void read_lstms(const std::string &source) {
    const std::string what = name + ": metadata '" + kOurKey + "'";
    const json configuration = parse_json(source, what);
    const int64_t version = integer(configuration, "format_version", what);
    if (version == 1)
      refuse_file(what + ": format version 1 was made by an unreleased version: convert the model "
                         "again");
    if (version != kFormatVersion)
      refuse_file(what + ": format version " + std::to_string(version) +
                  "; this library reads version " + std::to_string(kFormatVersion));
    const int64_t contract = integer(configuration, "numeric_contract", what);
    if (contract != kNumericContract)
      refuse_file(what + ": numeric contract " + std::to_string(contract) +
                  "; this library computes contract " + std::to_string(kNumericContract) +
                  ": convert the model again");
    const json &all = member(configuration, "lstms", what);
    if (!all.is_object() || all.empty())
      refuse_file(what + ": 'lstms' must be an object of at least one LSTM");
    for (const auto &[key, value] : all.items())
      lstms.emplace(key, read_configuration(value, name + ": LSTM '" + key + "'"));
    check_names();
  }

  // What lies below an LSTM's name is its own: another LSTM cannot lie there.
  void check_names() const {
    for (auto outer = lstms.begin(); outer != lstms.end(); ++outer) {
      const std::string prefix = outer->first.empty() ? "" : outer->first + ".";
      for (auto inner = lstms.lower_bound(prefix); inner != lstms.end(); ++inner) {
        if (inner->first.compare(0, prefix.size(), prefix) != 0)
          break;
        if (inner != outer)
          refuse_file(name + ": LSTM '" + inner->first + "' lies inside LSTM '" + outer->first +
                      "'");
      }
    }
  }
};

File::File(std::shared_ptr<const Contents> contents) : contents_(std::move(contents)) {}

File File::open(const std::string &path) {
  std::vector<uint8_t> bytes = read_file(path);
  const auto contents = std::make_shared<Contents>(path, bytes.data(), bytes.size());
  contents->owned = std::move(bytes); // the elements stay where they are
  return File(contents);
}

File File::map(const std::string &path) {
  const Descriptor file(path);
  return map(file.get(), path);
}

File File::map(int descriptor, const std::string &name) {
  const auto mapping = std::make_shared<const Mapping>(descriptor, name);
  const auto contents = std::make_shared<Contents>(name, mapping->data(), mapping->bytes());
  contents->shared = contents->mapping = mapping;
  return File(contents);
}

File File::from_memory(const void *data, size_t bytes, const std::string &name) {
  check_size(bytes, name);
  return File(std::make_shared<const Contents>(name, static_cast<const uint8_t *>(data), bytes));
}

File File::from_memory(std::shared_ptr<const void> data, size_t bytes, const std::string &name) {
  check_size(bytes, name);
  const auto contents =
      std::make_shared<Contents>(name, static_cast<const uint8_t *>(data.get()), bytes);
  contents->shared = std::move(data);
  return File(contents);
}

const std::shared_ptr<const void> &File::shared_memory() const { return contents_->shared; }

void File::leave(const TensorView &tensor) const {
  if (contents_->mapping)
    contents_->mapping->leave(tensor.data, tensor.bytes);
}

const std::string &File::name() const { return contents_->name; }

const std::map<std::string, std::string> &File::metadata() const { return contents_->metadata; }

std::vector<std::string> File::tensor_names() const {
  std::vector<std::string> names;
  for (const auto &[name, entry] : contents_->entries)
    names.push_back(name);
  return names;
}

bool File::has_tensor(std::string_view name) const {
  return contents_->entries.find(name) != contents_->entries.end();
}

TensorView File::tensor(std::string_view name) const {
  const auto found = contents_->entries.find(name);
  if (found == contents_->entries.end())
    refuse_file(contents_->name + ": " + std::string(name) + " is missing");
  const Entry &entry = found->second;
  return {found->first, entry.dtype, entry.shape, contents_->data + entry.begin,
          static_cast<size_t>(entry.end - entry.begin)};
}

std::vector<float> File::float32(std::string_view name) const {
  const TensorView found = tensor(name);
  static const std::map<std::string, DataType> types = {
      {"F32", DataType::float32}, {"F16", DataType::float16}, {"BF16", DataType::bfloat16}};
  const auto type = types.find(found.dtype);
  if (type == types.end())
    refuse_file(contents_->name + ": " + found.name + ": expected F32, F16 or BF16, got " +
                found.dtype);
  const int64_t count = static_cast<int64_t>(found.bytes) / bytes_of(type->second);
  std::vector<float> values(static_cast<size_t>(count));
  if (count)
    widen(found.data, type->second, count, values.data());
  return values;
}

std::vector<std::string> File::lstm_names() const {
  std::vector<std::string> names;
  for (const auto &[name, configuration] : contents_->lstms)
    names.push_back(name);
  return names;
}

LstmConfiguration File::lstm(std::string_view name) const {
  const auto found = contents_->lstms.find(name);
  if (found != contents_->lstms.end())
    return found->second;
  std::string all;
  for (const auto &[other, configuration] : contents_->lstms)
    all += (all.empty() ? "'" : ", '") + other + "'";
  refuse_file(
      contents_->name + ": no LSTM '" + std::string(name) + "', " +
      (all.empty() ? "nor any other: lstm_fastkernels.save_file writes them" : "it holds " + all));
}

std::map<std::string, TensorView> File::lstm_tensors(std::string_view name) const {
  const std::string prefix = name.empty() ? "" : std::string(name) + ".";
  std::map<std::string, TensorView> tensors;
  for (auto entry = contents_->entries.lower_bound(prefix);
       entry != contents_->entries.end() && entry->first.compare(0, prefix.size(), prefix) == 0;
       ++entry)
    tensors.emplace(entry->first.substr(prefix.size()), tensor(entry->first));
  if (!lstm(name).packed_from.empty())
    tensors.erase(kPacked);
  return tensors;
}

TensorView File::packed_tensor(std::string_view name) const {
  const std::string prefix = name.empty() ? "" : std::string(name) + ".";
  TensorView packed = tensor(prefix + kPacked);
  if (packed.dtype != "U8" || packed.shape.size() != 1)
    refuse_file(contents_->name + ": " + packed.name + ": expected U8 of one dimension, got " +
                packed.dtype + " of " + std::to_string(packed.shape.size()));
  return packed;
}

} // namespace lstm_fastkernels
