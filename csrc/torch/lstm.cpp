#include "lstm_fastkernels/lstm.h"
#include "ops.h"

namespace lstm_fastkernels {
namespace {

int thread_count() {
  uint32_t threads = 1;
  TORCH_ERROR_CODE_CHECK(torch_get_num_threads(&threads));
  return static_cast<int>(threads);
}

// The shape that the packed weights declare, checked for the kernels of their device.
LstmShape shape_of(const Tensor &packed, const std::optional<Head> &head, const Device &device) {
  if (device.is_cuda())
    require_cuda();
  const int64_t bytes = packed.numel();
  require(bytes > 0, "there are no packed weights: load_state_dict makes them");
  require(!head || device.is_cuda(),
          "the weights were packed for CUDA, the tensors are on the CPU");
  if (device.is_cpu())
    return packed_shape(packed.const_data_ptr(), static_cast<size_t>(bytes));
  require(head.has_value(),
          "the weights were packed for the CPU, the tensors are on a CUDA device");
  return cuda_packed_shape(packed, *head);
}

} // namespace

std::tuple<Tensor, Tensor, Tensor>
lstm(Tensor x, std::optional<Tensor> h0, std::optional<Tensor> c0, std::optional<Tensor> lengths,
     const Tensor &packed, int64_t input_size, int64_t hidden_size, int64_t proj_size,
     int64_t num_layers, bool bidirectional, bool batch_first, const std::optional<Head> &head) {
  const bool packed_sequence = x.dim() == 2;
  require(packed_sequence || x.dim() == 3, "input must have 2 or 3 dimensions, got ", x.dim());
  const Device device = device_of(packed);
  require(device.is_cpu() || device.is_cuda(),
          "compressed LSTMs run on the CPU and on CUDA devices: move the module to one");
  check_device("input", x, device);
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
    const char *const name = packed_sequence ? "batch_sizes" : "lengths";
    check_on_cpu(name, *lengths);
    check_type(name, *lengths, ScalarType::Long);
    require(lengths->dim() == 1, name, " must have 1 dimension, got ", lengths->dim());
    make_gapless(*lengths);
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
    check_device("h0", *h0, device);
    check_device("c0", *c0, device);
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
    make_gapless(*h0);
    make_gapless(*c0);
    a.h0 = h0->const_data_ptr();
    a.c0 = c0->const_data_ptr();
  } else {
    a.state_type = a.data_type;
  }

  const LstmShape shape = shape_of(packed, head, device);
  require(shape.input_size == input_size && shape.hidden_size == hidden_size &&
              shape.proj_size == proj_size && shape.num_layers == num_layers &&
              shape.num_directions == directions,
          "packed weights were made for other sizes: input_size ", shape.input_size,
          ", hidden_size ", shape.hidden_size, ", proj_size ", shape.proj_size, ", num_layers ",
          shape.num_layers, ", directions ", shape.num_directions);

  make_rows_gapless(x);
  std::vector<int64_t> y_shape(x.sizes().begin(), x.sizes().end());
  y_shape.back() = directions * output_size;
  Tensor y = allocate(y_shape, x.scalar_type(), device);
  Tensor h_n = allocate(h_shape, state_type, device);
  Tensor c_n = allocate(c_shape, state_type, device);
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
  if (device.is_cpu()) {
    a.threads = thread_count();
    lstm_forward(packed.const_data_ptr(), static_cast<size_t>(packed.numel()), a);
  } else if (packed_sequence || a.batch_size > 0) {
    run_on_cuda(packed, *head, a);
  }
  return {y, h_n, c_n};
}

} // namespace lstm_fastkernels
