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
  std::string packed_from; // the hash of the tensors that `packed` was made from; "": there is none
};

// The contents of a file, checked as a whole: no tensor overlaps another or leaves the file. Copies
// share them. Functions throw Error, with the file and the tensor in its message.
class LSTM_FASTKERNELS_API File {
public:
  // Reads the whole file.
  static File open(const std::string &path);
  // Maps the file, or that of an open descriptor, which may be closed afterwards. LSTMs that were
  // saved packed run straight from its pages, which all processes that map it share. It stays
  // mapped as long as the File, a copy of it or such an Lstm is there: until then it may be removed
  // or replaced by another file, as save_file does, but not changed or cut in place.
  static File map(const std::string &path);
  static File map(int descriptor, const std::string &name);
  // The memory must outlive the File and its copies. `name` is what errors call it.
  static File from_memory(const void *data, size_t bytes, const std::string &name = "memory");
  // The memory is kept as long as a file stays mapped, and must not change until then: LSTMs run
  // from it as from a mapped file.
  static File from_memory(std::shared_ptr<const void> data, size_t bytes,
                          const std::string &name = "memory");

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
  // takes, and so without `packed`.
  std::map<std::string, TensorView> lstm_tensors(std::string_view name) const;
  // The strings that the writer added.
  const std::map<std::string, std::string> &metadata() const;

private:
  friend class Lstm;
  struct Contents;
  // Where LSTMs may run in place; null: nowhere.
  const std::shared_ptr<const void> &shared_memory() const;
  // Of an LSTM whose configuration has packed_from.
  TensorView packed_tensor(std::string_view name) const;
  // It will not be looked at again soon.
  void leave(const TensorView &tensor) const;
  explicit File(std::shared_ptr<const Contents> contents);
  std::shared_ptr<const Contents> contents_;
};

} // namespace lstm_fastkernels
