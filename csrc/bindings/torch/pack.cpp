#include <string>
#include <utility>

#include "bindings/torch/ops.h"
#include "lstm_fastkernels/lstm.h"

namespace lstm_fastkernels {
namespace {

// Takes the tensors of a stack one after the other and checks them on the way.
class WeightTensors {
public:
  WeightTensors(std::vector<Tensor> tensors, int activation_bits)
      : tensors_(std::move(tensors)), bits_(activation_bits) {}

  WeightMatrix matrix(const std::string &name, int64_t rows, int64_t columns, int64_t gates) {
    WeightMatrix m;
    const Tensor &weights = next(name, bits_ == 32 ? ScalarType::Float : ScalarType::Char);
    m.weights = weights.const_data_ptr();
    if (weights.dim() == 3) {
      m.num_blocks = weights.size(0);
      m.block_rows = weights.size(1);
      m.block_columns = weights.size(2);
      const int64_t block_rows = count_block_rows(rows, gates, m.block_rows, name);
      m.crow_indices = indices(name + "_crow_indices", block_rows + 1);
      m.col_indices = indices(name + "_col_indices", m.num_blocks);
    } else {
      check_shape(name.c_str(), weights, {rows, columns});
    }
    if (bits_ != 32)
      m.scales = floats(name + "_scale", rows);
    return m;
  }

  const float *floats(const std::string &name, int64_t rows) {
    const Tensor &t = next(name, ScalarType::Float);
    check_shape(name.c_str(), t, {rows});
    return t.const_data_ptr<float>();
  }

  void finish() const {
    require(taken_ == tensors_.size(), "expected ", taken_, " tensors, got ", tensors_.size());
  }

private:
  const Tensor &next(const std::string &name, ScalarType type) {
    require(taken_ < tensors_.size(), "expected more than ", taken_, " tensors: ", name,
            " is missing");
    Tensor &t = tensors_[taken_++];
    check_on_cpu(name.c_str(), t);
    check_type(name.c_str(), t, type);
    make_gapless(t);
    return t;
  }

  const int32_t *indices(const std::string &name, int64_t count) {
    const Tensor &t = next(name, ScalarType::Int);
    check_shape(name.c_str(), t, {count});
    return t.const_data_ptr<int32_t>();
  }

  std::vector<Tensor> tensors_; // also keeps gapless copies alive
  const int bits_;
  size_t taken_ = 0;
};

} // namespace

std::tuple<Tensor, std::optional<Head>> pack_lstm(std::vector<Tensor> tensors, int64_t input_size,
                                                  int64_t hidden_size, int64_t proj_size,
                                                  int64_t num_layers, bool bidirectional, bool bias,
                                                  int64_t activation_bits, bool cuda) {
  LstmShape shape;
  shape.input_size = input_size;
  shape.hidden_size = hidden_size;
  shape.proj_size = proj_size;
  shape.num_layers = num_layers;
  shape.num_directions = bidirectional ? 2 : 1;
  shape.activation_bits = static_cast<int>(activation_bits);
  validate(shape);

  WeightTensors taken(std::move(tensors), shape.activation_bits);
  std::vector<LayerWeights> weights;
  for (int64_t i = 0; i < num_layers * shape.num_directions; ++i) {
    const int64_t layer = i / shape.num_directions;
    const std::string suffix = layer_suffix(shape, i);
    LayerWeights w;
    w.ih = taken.matrix("weight_ih" + suffix, 4 * hidden_size, shape.layer_input_size(layer), 4);
    w.hh = taken.matrix("weight_hh" + suffix, 4 * hidden_size, shape.output_size(), 4);
    if (bias)
      w.bias = taken.floats("bias" + suffix, 4 * hidden_size);
    if (proj_size)
      w.hr = taken.matrix("weight_hr" + suffix, proj_size, hidden_size, 1);
    weights.push_back(w);
  }
  taken.finish();
  if (cuda)
    return pack_for_cuda(shape, weights.data());
  const size_t bytes = packed_bytes(shape, weights.data());
  Tensor packed = allocate({static_cast<int64_t>(bytes)}, ScalarType::Byte, Device::cpu());
  pack(shape, weights.data(), packed.mutable_data_ptr(), bytes);
  return {packed, std::nullopt};
}

} // namespace lstm_fastkernels
