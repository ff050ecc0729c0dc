// The canonical tensors of one LSTM, found in a file, checked and packed.
#include <cstring>
#include <deque>
#include <set>

#include "file/json.h"
#include "lstm_fastkernels/file.h"

namespace lstm_fastkernels {
namespace {

constexpr int kAnySize = -1;

// Rows cost memory, even without weights: some 16 bytes packed and more while they are. So a file
// that claims more than a million of them must hold a byte for 16.
constexpr int64_t kUnquestionedRows = int64_t{1} << 20;
constexpr int64_t kMostRowsAByte = 16;

class Weights {
public:
  Weights(const File &file, std::string_view name)
      : file_(file), configuration_(file.lstm(name)), shape_(configuration_.shape),
        prefix_(name.empty() ? "" : std::string(name) + ".") {
    for (int64_t i = 0; i < shape_.num_layers * shape_.num_directions; ++i)
      layers_.push_back(layer(i));
    refuse_others();
    check_rows();
  }

  const LstmShape &shape() const { return shape_; }
  const LayerWeights *layers() const { return layers_.data(); }

private:
  LayerWeights layer(int64_t index) {
    const std::string suffix = layer_suffix(shape_, index);
    const int64_t rows = 4 * shape_.hidden_size;
    LayerWeights w;
    w.ih = matrix("weight_ih" + suffix, rows,
                  shape_.layer_input_size(index / shape_.num_directions), 4);
    w.hh = matrix("weight_hh" + suffix, rows, shape_.output_size(), 4);
    if (shape_.proj_size)
      w.hr = matrix("weight_hr" + suffix, shape_.proj_size, shape_.hidden_size, 1);
    if (configuration_.bias)
      w.bias = copy<float>("bias" + suffix, "F32", {rows});
    return w;
  }

  WeightMatrix matrix(const std::string &name, int64_t rows, int64_t columns, int64_t gates) {
    const char *const dtype = shape_.activation_bits == 32 ? "F32" : "I8";
    WeightMatrix m;
    if (file_.has_tensor(prefix_ + name + "_values")) {
      const Tensor values = take(name + "_values", dtype, {kAnySize, kAnySize, kAnySize});
      m.weights = values.data;
      m.num_blocks = values.shape[0];
      m.block_rows = values.shape[1];
      m.block_columns = values.shape[2];
      const int64_t block_rows = count_block_rows(rows, gates, m.block_rows, name);
      m.crow_indices = copy<int32_t>(name + "_crow_indices", "I32", {block_rows + 1});
      m.col_indices = copy<int32_t>(name + "_col_indices", "I32", {m.num_blocks});
    } else {
      m.weights = take(name, dtype, {rows, columns}).data;
    }
    if (shape_.activation_bits != 32)
      m.scales = copy<float>(name + "_scale", "F32", {rows});
    return m;
  }

  // kAnySize in `shape` is any size.
  Tensor take(const std::string &name, const char *dtype, const std::vector<int64_t> &shape) {
    Tensor tensor = file_.tensor(prefix_ + name);
    bool same = tensor.dtype == dtype && tensor.shape.size() == shape.size();
    for (size_t i = 0; same && i < shape.size(); ++i)
      same = shape[i] == kAnySize || shape[i] == tensor.shape[i];
    if (!same)
      refuse(name + ": expected " + dtype + " " + text(shape) + ", got " + tensor.dtype + " " +
             text(tensor.shape));
    taken_.insert(tensor.name);
    bytes_ += static_cast<int64_t>(tensor.bytes);
    return tensor;
  }

  // At T's alignment.
  template <class T>
  const T *copy(const std::string &name, const char *dtype, const std::vector<int64_t> &shape) {
    const Tensor tensor = take(name, dtype, shape);
    // One element more: a tensor without any has a pointer, too.
    copies_.emplace_back(tensor.bytes + sizeof(T));
    if (tensor.bytes)
      std::memcpy(copies_.back().data(), tensor.data, tensor.bytes);
    return reinterpret_cast<const T *>(copies_.back().data());
  }

  // Whatever lies below the LSTM's name is its own: anything left over is of another LSTM.
  void refuse_others() const {
    for (const std::string &name : file_.tensor_names())
      if (name.compare(0, prefix_.size(), prefix_) == 0 && !taken_.count(name))
        refuse(name.substr(prefix_.size()) + " does not belong to an LSTM of this configuration");
  }

  void check_rows() const {
    const int64_t rows =
        shape_.num_layers * shape_.num_directions * (8 * shape_.hidden_size + shape_.proj_size);
    if (rows > kUnquestionedRows && rows / kMostRowsAByte > bytes_)
      refuse("the LSTM's sizes are not possible with tensors of " + std::to_string(bytes_) +
             " bytes");
  }

  [[noreturn]] void refuse(const std::string &what) const {
    refuse_file(file_.name() + ": " + prefix_ + what);
  }

  static std::string text(const std::vector<int64_t> &shape) {
    std::string sizes;
    for (const int64_t size : shape)
      sizes += (sizes.empty() ? "" : ", ") + (size == kAnySize ? "any" : std::to_string(size));
    return "[" + sizes + "]";
  }

  const File &file_;
  const LstmConfiguration configuration_;
  const LstmShape &shape_;
  const std::string prefix_;
  std::deque<std::vector<uint8_t>> copies_;
  std::set<std::string> taken_;
  int64_t bytes_ = 0; // of what was taken
  std::vector<LayerWeights> layers_;
};

} // namespace

Lstm Lstm::load(const File &file, std::string_view name) {
  try {
    const Weights weights(file, name);
    return Lstm(weights.shape(), weights.layers());
  } catch (const Error &error) {
    if (error.code() == ErrorCode::invalid_file)
      throw;
    // The core's message names the tensor alone.
    refuse_file(file.name() + ": " + (name.empty() ? "" : std::string(name) + ".") + error.what());
  }
}

} // namespace lstm_fastkernels
