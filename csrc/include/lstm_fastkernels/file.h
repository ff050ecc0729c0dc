// Reading a file that lstm_fastkernels.save_file wrote (docs/file_format.md), or the tensors of any
// other safetensors file. Link lstm_fastkernels::file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lstm_fastkernels/api.h"
#include "lstm_fastkernels/model.h"

namespace lstm_fastkernels {

// What a module was built with.
struct LstmConfiguration {
  LstmShape shape;
  std::vector<Precision> precisions; // one for each of matrix_names(shape)
  std::string class_name;            // of the Python module: "FastQuantLSTM", ...
  bool bias = true;
  bool batch_first = false; // in Python; here, strides say how x and y lie
};

// The contents of a file, checked as a whole: no tensor overlaps another or leaves the file. Copies
// share them. Functions throw Error, with the file and the tensor in its message.
class LSTM_FASTKERNELS_API File {
public:
  // Reads the whole file.
  static File open(const std::string &path);
  // The memory must outlive the File and its copies. `name` is what errors call it.
  static File from_memory(const void *data, size_t bytes, const std::string &name = "memory");

  const std::string &name() const;
  std::vector<std::string> tensor_names() const; // sorted
  bool has_tensor(std::string_view name) const;
  // Valid as long as the File or a copy of it.
  TensorView tensor(std::string_view name) const;
  // Of an F32, F16 or BF16 tensor.
  std::vector<float> float32(std::string_view name) const;

  // "" is the name of an LSTM that was saved by itself. Sorted.
  std::vector<std::string> lstm_names() const;
  LstmConfiguration lstm(std::string_view name) const;
  // The LSTM's tensors by the names below its own, weight_ih_l0 and the like: what CanonicalTensors
  // takes.
  std::map<std::string, TensorView> lstm_tensors(std::string_view name) const;
  // The strings that the writer added.
  const std::map<std::string, std::string> &metadata() const;

private:
  struct Contents;
  explicit File(std::shared_ptr<const Contents> contents);
  std::shared_ptr<const Contents> contents_;
};

} // namespace lstm_fastkernels
