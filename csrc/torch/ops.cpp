// The torch ops: check, allocate, call. Built on torch's stable ABI, so that one build serves every
// torch from 2.10 on. Fake kernels stand in lstm_fastkernels/ops.py.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "lstm_fastkernels/isa.h"
#include "lstm_fastkernels/lstm.h"

namespace lstm_fastkernels {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <class... Parts> void require(bool condition, const Parts &...parts) {
  if (condition)
    return;
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

template <class Sizes> std::string text(const Sizes &sizes, char open, char close) {
  std::ostringstream out;
  out << open;
  for (size_t i = 0; i < sizes.size(); ++i)
    out << (i ? ", " : "") << sizes[i];
  out << close;
  return out.str();
}

const char *text(ScalarType type) {
  switch (type) {
  case ScalarType::Float:
    return "float32";
  case ScalarType::Double:
    return "float64";
  case ScalarType::Half:
    return "float16";
  case ScalarType::BFloat16:
    return "bfloat16";
  case ScalarType::Byte:
    return "uint8";
  case ScalarType::Char:
    return "int8";
  case ScalarType::Int:
    return "int32";
  case ScalarType::Long:
    return "int64";
  default:
    return "another dtype";
  }
}

Tensor allocate(const std::vector<int64_t> &sizes, ScalarType type) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t i = sizes.size() - 1; i > 0; --i)
    strides[i - 1] = strides[i] * (sizes[i] > 0 ? sizes[i] : 1);
  const int32_t dtype = type == ScalarType::Half       ? aoti_torch_dtype_float16()
                        : type == ScalarType::BFloat16 ? aoti_torch_dtype_bfloat16()
                        : type == ScalarType::Byte     ? aoti_torch_dtype_uint8()
                                                       : aoti_torch_dtype_float32();
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()),
                                                         sizes.data(), strides.data(), dtype,
                                                         aoti_torch_device_type_cpu(), 0, &handle));
  return Tensor(handle);
}

void check_shape(const char *name, const Tensor &t, const std::vector<int64_t> &expected) {
  const auto sizes = t.sizes();
  bool same = sizes.size() == expected.size();
  for (size_t i = 0; same && i < expected.size(); ++i)
    same = sizes[i] == expected[i];
  if (same)
    return;
  require(false, "Expected ", name, " size ", text(expected, '(', ')'), ", got ",
          text(sizes, '[', ']'));
}

void check_type(const char *name, const Tensor &t, ScalarType expected) {
  require(t.is_cpu(), name, " must be on the CPU, where the weights are");
  require(t.scalar_type() == expected, name, " must be of dtype ", text(expected), ", got ",
          text(t.scalar_type()));
}

DataType data_type(const char *name, const Tensor &t) {
  switch (t.scalar_type()) {
  case ScalarType::Float:
    return DataType::float32;
  case ScalarType::Half:
    return DataType::float16;
  case ScalarType::BFloat16:
    return DataType::bfloat16;
  default:
    throw std::invalid_argument(std::string(name) + " must be float32, float16 or bfloat16, got " +
                                text(t.scalar_type()) +
                                (t.scalar_type() == ScalarType::Double ? ": use .float()" : ""));
  }
}

// Asks first: the call costs a trip through torch's dispatcher.
Tensor gapless(const Tensor &t) { return t.is_contiguous() ? t : torch::stable::contiguous(t); }

// Rows must lie without gaps in their last dimension; other strides are free.
Tensor with_dense_rows(const Tensor &t) {
  const int64_t last = t.dim() - 1;
  return t.stride(last) == 1 || t.size(last) == 1 ? t : torch::stable::contiguous(t);
}

int thread_count() {
  uint32_t threads = 1;
  STABLE_TORCH_ERROR_CODE_CHECK(torch_get_num_threads(&threads));
  return static_cast<int>(threads);
}

// x [T, B, I], or [B, T, I] with batch_first; or the data [N, I] of a PackedSequence, and then
// `lengths` holds its batch_sizes.
std::tuple<Tensor, Tensor, Tensor> lstm(Tensor x, std::optional<Tensor> h0,
                                        std::optional<Tensor> c0, std::optional<Tensor> lengths,
                                        Tensor packed, int64_t input_size, int64_t hidden_size,
                                        int64_t proj_size, int64_t num_layers, bool bidirectional,
                                        bool batch_first) {
  const bool packed_sequence = x.dim() == 2;
  require(packed_sequence || x.dim() == 3, "input must have 2 or 3 dimensions, got ", x.dim());
  require(x.is_cpu(), "input must be on the CPU, where the weights are");
  require(x.size(x.dim() - 1) == input_size,
          "input.size(-1) must be equal to input_size. Expected ", input_size, ", got ",
          x.size(x.dim() - 1));
  check_type("packed weights", packed, ScalarType::Byte);
  require(packed.dim() == 1 && packed.is_contiguous(),
          "packed weights must be a plain byte vector");
  require(!packed_sequence || lengths,
          "2-D input is the data of a PackedSequence and needs batch_sizes");

  LstmArguments a;
  a.data_type = data_type("input", x);
  if (lengths) {
    check_type(packed_sequence ? "batch_sizes" : "lengths", *lengths, ScalarType::Long);
    require(lengths->dim() == 1, packed_sequence ? "batch_sizes" : "lengths",
            " must have 1 dimension, got ", lengths->dim());
    lengths = gapless(*lengths);
  }
  const int64_t *counts = lengths ? lengths->const_data_ptr<int64_t>() : nullptr;
  if (packed_sequence) {
    a.time_steps = lengths->size(0);
    require(a.time_steps > 0, "Expected sequence length to be larger than 0 in RNN");
    a.batch_size = counts[0];
    a.batch_sizes = counts;
    int64_t rows = 0;
    for (int64_t t = 0; t < a.time_steps; ++t)
      rows += counts[t];
    require(rows == x.size(0), "batch_sizes must add up to input.size(0). Expected ", x.size(0),
            ", got ", rows);
  } else {
    a.time_steps = x.size(batch_first ? 1 : 0);
    a.batch_size = x.size(batch_first ? 0 : 1);
    require(a.time_steps > 0, "Expected sequence length to be larger than 0 in RNN");
    if (lengths)
      check_shape("lengths", *lengths, {a.batch_size});
    a.lengths = counts;
  }

  const int64_t directions = bidirectional ? 2 : 1;
  const int64_t output_size = proj_size ? proj_size : hidden_size;
  const std::vector<int64_t> h_shape = {num_layers * directions, a.batch_size, output_size};
  const std::vector<int64_t> c_shape = {num_layers * directions, a.batch_size, hidden_size};
  ScalarType state_type = x.scalar_type();
  require(h0.has_value() == c0.has_value(), "give both h0 and c0 or neither");
  if (h0) {
    require(h0->is_cpu() && c0->is_cpu(), "h0 and c0 must be on the CPU, where the weights are");
    require(packed_sequence || (h0->dim() == 3 && c0->dim() == 3),
            "For batched 3-D input, hx and cx should also be 3-D but got (", h0->dim(), "-D, ",
            c0->dim(), "-D) tensors");
    check_shape("hidden[0]", *h0, h_shape);
    check_shape("hidden[1]", *c0, c_shape);
    state_type = h0->scalar_type();
    require(c0->scalar_type() == state_type, "h0 and c0 must be of one dtype, got ",
            text(state_type), " and ", text(c0->scalar_type()));
    require(state_type == ScalarType::Float || state_type == x.scalar_type(),
            "h0 and c0 must be float32 or of the input's dtype, got ", text(state_type));
    a.state_type = data_type("h0", *h0);
    h0 = gapless(*h0);
    c0 = gapless(*c0);
    a.h0 = h0->const_data_ptr();
    a.c0 = c0->const_data_ptr();
  } else {
    a.state_type = a.data_type;
  }

  const void *const weights = packed.const_data_ptr();
  const size_t bytes = static_cast<size_t>(packed.numel());
  const LstmShape shape = packed_shape(weights, bytes);
  require(shape.input_size == input_size && shape.hidden_size == hidden_size &&
              shape.proj_size == proj_size && shape.num_layers == num_layers &&
              shape.num_directions == directions,
          "packed weights were made for other sizes: input_size ", shape.input_size,
          ", hidden_size ", shape.hidden_size, ", proj_size ", shape.proj_size, ", num_layers ",
          shape.num_layers, ", directions ", shape.num_directions);

  x = with_dense_rows(x);
  std::vector<int64_t> y_shape(x.sizes().begin(), x.sizes().end());
  y_shape.back() = directions * output_size;
  Tensor y = allocate(y_shape, x.scalar_type());
  Tensor h_n = allocate(h_shape, state_type);
  Tensor c_n = allocate(c_shape, state_type);
  a.x = x.const_data_ptr();
  a.y = y.mutable_data_ptr();
  a.h_n = h_n.mutable_data_ptr();
  a.c_n = c_n.mutable_data_ptr();
  const int64_t time = packed_sequence || !batch_first ? 0 : 1;
  const int64_t row = packed_sequence || batch_first ? 0 : 1;
  a.x_time_stride = x.stride(time);
  a.x_row_stride = x.stride(row);
  a.y_time_stride = y.stride(time);
  a.y_row_stride = y.stride(row);
  a.threads = thread_count();
  lstm_forward(weights, bytes, a);
  return {y, h_n, c_n};
}

// Takes the tensors of a stack one after the other and checks them on the way.
class WeightTensors {
public:
  WeightTensors(std::vector<Tensor> tensors, int activation_bits)
      : tensors_(std::move(tensors)), bits_(activation_bits) {}

  // A matrix, or its blocks [blocks, block rows, block columns] followed by crow_indices and
  // col_indices; then the scales of an int8 one.
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
    check_type(name.c_str(), t, type);
    t = gapless(t);
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

// `tensors` holds for each layer and direction weight_ih and weight_hh, then the bias if there is
// one, then weight_hr with a projection; each matrix as WeightTensors has it.
Tensor pack_lstm(std::vector<Tensor> tensors, int64_t input_size, int64_t hidden_size,
                 int64_t proj_size, int64_t num_layers, bool bidirectional, bool bias,
                 int64_t activation_bits) {
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
  const size_t bytes = packed_bytes(shape, weights.data());
  Tensor packed = allocate({static_cast<int64_t>(bytes)}, ScalarType::Byte);
  pack(shape, weights.data(), packed.mutable_data_ptr(), bytes);
  return packed;
}

std::string get_isa() { return std::string(isa_name(active_isa())); }

// An unknown name is a ValueError; for wrong sizes and values torch's habit is RuntimeError.
void choose_isa(std::string name) {
  try {
    set_isa(name);
  } catch (const Error &error) {
    throw std::invalid_argument(error.what());
  }
}

// Names separated by spaces, lowest first.
std::string get_supported_isas() {
  std::string names;
  for (Isa isa : supported_isas())
    (names += names.empty() ? "" : " ") += isa_name(isa);
  return names;
}

// What the gradient of lstm calls, so that a compiled graph raises only when it runs backward.
Tensor no_backward(Tensor, std::vector<int64_t>) {
  throw std::runtime_error("this LSTM is for inference: its compressed weights have no gradient. "
                           "Train the float nn.LSTM "
                           "(dequantize() or to_dense() gives one) and convert it again");
}

} // namespace
} // namespace lstm_fastkernels

STABLE_TORCH_LIBRARY(lstm_fastkernels, m) {
  m.def("lstm(Tensor x, Tensor? h0, Tensor? c0, Tensor? lengths, Tensor packed, "
        "int input_size, int hidden_size, int proj_size, int num_layers, bool bidirectional, "
        "bool batch_first) -> (Tensor, Tensor, Tensor)");
  m.def("pack_lstm(Tensor[] tensors, int input_size, int hidden_size, int proj_size, "
        "int num_layers, bool bidirectional, bool bias, int activation_bits) -> Tensor");
  m.def("no_backward(Tensor gradient, SymInt[] shape) -> Tensor");
  m.def("get_isa() -> str");
  m.def("set_isa(str name) -> ()");
  m.def("supported_isas() -> str");
}

STABLE_TORCH_LIBRARY_IMPL(lstm_fastkernels, CPU, m) {
  m.impl("lstm", TORCH_BOX(&lstm_fastkernels::lstm));
  m.impl("pack_lstm", TORCH_BOX(&lstm_fastkernels::pack_lstm));
  m.impl("no_backward", TORCH_BOX(&lstm_fastkernels::no_backward));
}

STABLE_TORCH_LIBRARY_IMPL(lstm_fastkernels, CompositeExplicitAutograd, m) {
  m.impl("get_isa", TORCH_BOX(&lstm_fastkernels::get_isa));
  m.impl("set_isa", TORCH_BOX(&lstm_fastkernels::choose_isa));
  m.impl("supported_isas", TORCH_BOX(&lstm_fastkernels::get_supported_isas));
}
