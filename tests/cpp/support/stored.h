// Files in parts, so that a test can build any defect into one.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "lstm_fastkernels/file.h"
#include "stack.h"

namespace lstm_fastkernels {

using Bytes = std::vector<uint8_t>;

// A safetensors file: the header's length, the header, the data.
Bytes safetensors(const std::string &header, const Bytes &data);

template <class T> Bytes bytes_of(const std::vector<T> &values) {
  Bytes bytes(values.size() * sizeof(T));
  if (!bytes.empty())
    std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

struct StoredTensor {
  std::string dtype;
  std::vector<int64_t> shape;
  Bytes data;

  template <class T> void put(size_t i, T value) {
    std::memcpy(data.data() + i * sizeof(T), &value, sizeof value);
  }
};

// Options of an LSTM, each as JSON text.
using StoredOptions = std::map<std::string, std::string>;

struct StoredFile {
  std::map<std::string, StoredTensor> tensors; // one behind the other, sorted by name
  std::map<std::string, StoredOptions> lstms;
  std::string version = "2", contract = "2"; // as JSON text

  void add(const std::string &name, const HeldStack &stack);
  // Beside the tensors of an LSTM that was added, as they are now: what was packed from them.
  void add_packed(const std::string &name, const Bytes &packed);

  // What the header says of a tensor: "name":{...}.
  std::string entry(const std::string &name) const;
  std::string configuration() const;
  std::string header() const;
  Bytes data() const;
  Bytes bytes() const { return safetensors(header(), data()); }
};

// A file of one LSTM, saved by itself.
StoredFile stored(const HeldStack &stack);

// The file in memory that ends where readable memory ends; the File keeps it, and so do LSTMs that
// run from it.
File in_shared_memory(const Bytes &file);

// Loads every LSTM of a file that is in memory like that, and of one whose memory is not shared.
void load_all(const Bytes &file);
// That it throws an error of the file that begins so, behind the file's name.
void check_refused(const Bytes &file, const std::string &message);

// A path in tests/.
std::string test_path(const std::string &name);
Bytes read_bytes(const std::string &path);

} // namespace lstm_fastkernels
