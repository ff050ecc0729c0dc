#include "lstm_fastkernels/lstm.h"

#include <utility>

#include "bindings/torch/ops.h"

namespace lstm_fastkernels {
namespace {

int thread_count() {
  uint32_t threads = 1;
  TORCH_ERROR_CODE_CHECK(torch_get_num_threads(&threads));
  return static_cast<int>(threads);
}

// The shape that the packed weights declare, checked for the kernels of their device; on CUDA also
// the stack.
LstmShape shape_of(const Tensor &packed, const std::optional<Head> &head, const Device &device,
                   std::optional<CudaStack> &cuda_stack) {
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
  return cuda_stack.emplace(packed, *head).shape();
}

// The op's arguments.
struct Inputs {
  Tensor x;
  std::optional<Tensor> h0, c0, lengths;
  const Tensor &packed;
  int64_t input_size, hidden_size, proj_size, num_layers;
  bool bidirectional, batch_first;
  const std::optional<Head> &head;

  bool packed_sequence() const { return x.dim() == 2; }
};

// What they ask for.
struct Call {
  Device device;
  std::vector<int64_t> h_shape, c_shape;
  ScalarType state_type;
  LstmArguments arguments; // without x, its strides and the outputs
  std::optional<CudaStack> cuda_stack;
};

// Throws unless they fit each other. Makes contiguous what must be.
Call check(Inputs &in) {
  Call call{};
  require(in.packed_sequence() || in.x.dim() == 3, "input must have 2 or 3 dimensions, got ",
          in.x.dim());
  call.device = device_of(in.packed);
  const Device &device = call.device;
  require(device.is_cpu() || device.is_cuda(),
          "compressed LSTMs run on the CPU and on CUDA devices: move the module to one");
  check_device("input", in.x, device);
  require(in.x.size(in.x.dim() - 1) == in.input_size,
          "input.size(-1) must be equal to input_size. Expected ", in.input_size, ", got ",
          in.x.size(in.x.dim() - 1));
  check_type("packed weights", in.packed, ScalarType::Byte);
  require(in.packed.dim() == 1 && in.packed.is_contiguous(),
          "packed weights must be a plain byte vector");
  require(!in.packed_sequence() || in.lengths,
          "2-D input is the data of a PackedSequence and needs batch_sizes");

  LstmArguments &a = call.arguments;
  a.data_type = data_type("input", in.x);
  if (in.lengths) {
    const char *const name = in.packed_sequence() ? "batch_sizes" : "lengths";
    check_on_cpu(name, *in.lengths);
    check_type(name, *in.lengths, ScalarType::Long);
    require(in.lengths->dim() == 1, name, " must have 1 dimension, got ", in.lengths->dim());
    make_gapless(*in.lengths);
  }
  const int64_t *counts = in.lengths ? in.lengths->const_data_ptr<int64_t>() : nullptr;
  if (in.packed_sequence()) {
    a.time_steps = in.lengths->size(0);
    require(a.time_steps > 0, "Expected sequence length to be larger than 0 in RNN");
    a.batch_size = counts[0];
    a.batch_sizes = counts;
    int64_t rows = 0;
    for (int64_t t = 0; t < a.time_steps; ++t)
      rows += counts[t];
    require(rows == in.x.size(0), "batch_sizes must add up to input.size(0). Expected ",
            in.x.size(0), ", got ", rows);
  } else {
    a.time_steps = in.x.size(in.batch_first ? 1 : 0);
    a.batch_size = in.x.size(in.batch_first ? 0 : 1);
    require(a.time_steps > 0, "Expected sequence length to be larger than 0 in RNN");
    if (in.lengths)
      check_shape("lengths", *in.lengths, {a.batch_size});
    a.lengths = counts;
  }

  const int64_t directions = in.bidirectional ? 2 : 1;
  const int64_t output_size = in.proj_size ? in.proj_size : in.hidden_size;
  call.h_shape = {in.num_layers * directions, a.batch_size, output_size};
  call.c_shape = {in.num_layers * directions, a.batch_size, in.hidden_size};
  call.state_type = in.x.scalar_type();
  require(in.h0.has_value() == in.c0.has_value(), "give both h0 and c0 or neither");
  if (in.h0) {
    check_device("h0", *in.h0, device);
    check_device("c0", *in.c0, device);
    require(in.packed_sequence() || (in.h0->dim() == 3 && in.c0->dim() == 3),
            "For batched 3-D input, hx and cx should also be 3-D but got (", in.h0->dim(), "-D, ",
            in.c0->dim(), "-D) tensors");
    check_shape("hidden[0]", *in.h0, call.h_shape);
    check_shape("hidden[1]", *in.c0, call.c_shape);
    call.state_type = in.h0->scalar_type();
    const ScalarType state_type = call.state_type;
    require(in.c0->scalar_type() == state_type, "h0 and c0 must be of one dtype, got ",
            text(state_type), " and ", text(in.c0->scalar_type()));
    require(state_type == ScalarType::Float || state_type == in.x.scalar_type(),
            "h0 and c0 must be float32 or of the input's dtype, got ", text(state_type));
    a.state_type = data_type("h0", *in.h0);
    make_gapless(*in.h0);
    make_gapless(*in.c0);
    a.h0 = in.h0->const_data_ptr();
    a.c0 = in.c0->const_data_ptr();
  } else {
    a.state_type = a.data_type;
  }

  const LstmShape shape = shape_of(in.packed, in.head, device, call.cuda_stack);
  require(shape.input_size == in.input_size && shape.hidden_size == in.hidden_size &&
              shape.proj_size == in.proj_size && shape.num_layers == in.num_layers &&
              shape.num_directions == directions,
          "packed weights were made for other sizes: input_size ", shape.input_size,
          ", hidden_size ", shape.hidden_size, ", proj_size ", shape.proj_size, ", num_layers ",
          shape.num_layers, ", directions ", shape.num_directions);
  if (device.is_cpu())
    a.threads = thread_count();
  return call;
}

std::tuple<Tensor, Tensor, Tensor> run(Inputs in) {
  const Call call = check(in);
  LstmArguments a = call.arguments;
  Tensor &x = in.x;
  make_rows_gapless(x);
  std::vector<int64_t> y_shape(x.sizes().begin(), x.sizes().end());
  y_shape.back() = call.h_shape.back() * (in.bidirectional ? 2 : 1);
  Tensor y = allocate(y_shape, x.scalar_type(), call.device);
  Tensor h_n = allocate(call.h_shape, call.state_type, call.device);
  Tensor c_n = allocate(call.c_shape, call.state_type, call.device);
  a.x = x.const_data_ptr();
  a.y = y.mutable_data_ptr();
  a.h_n = h_n.mutable_data_ptr();
  a.c_n = c_n.mutable_data_ptr();
  const int64_t time = in.packed_sequence() || !in.batch_first ? 0 : 1;
  const int64_t row = in.packed_sequence() || in.batch_first ? 0 : 1;
  a.x_time_stride = x.stride(time);
  a.x_row_stride = x.stride(row);
  a.y_time_stride = y.stride(time);
  a.y_row_stride = y.stride(row);
  if (call.device.is_cpu())
    lstm_forward(in.packed.const_data_ptr(), static_cast<size_t>(in.packed.numel()), a);
  else if (in.packed_sequence() || a.batch_size > 0)
    call.cuda_stack->run(a);
  return {y, h_n, c_n};
}

std::string describe(Inputs in) {
  const Call call = check(in);
  const LstmArguments &a = call.arguments;
  std::ostringstream lines;
  lines << "on " << text(call.device) << ", T=" << a.time_steps << ", B=" << a.batch_size;
  if (call.device.is_cpu()) {
    const size_t bytes = static_cast<size_t>(in.packed.numel());
    for (const std::string &line : explain(in.packed.const_data_ptr(), bytes, a))
      lines << '\n' << line;
  } else {
    int layer = 0;
    for (const std::string &line : call.cuda_stack->explain(a))
      lines << "\nlayer " << layer++ << ": " << line;
  }
  return lines.str();
}

} // namespace

std::tuple<Tensor, Tensor, Tensor>
lstm(Tensor x, std::optional<Tensor> h0, std::optional<Tensor> c0, std::optional<Tensor> lengths,
     const Tensor &packed, int64_t input_size, int64_t hidden_size, int64_t proj_size,
     int64_t num_layers, bool bidirectional, bool batch_first, const std::optional<Head> &head) {
  return run({std::move(x), std::move(h0), std::move(c0), std::move(lengths), packed, input_size,
              hidden_size, proj_size, num_layers, bidirectional, batch_first, head});
}

std::string explain_lstm(Tensor x, std::optional<Tensor> h0, std::optional<Tensor> c0,
                         std::optional<Tensor> lengths, const Tensor &packed, int64_t input_size,
                         int64_t hidden_size, int64_t proj_size, int64_t num_layers,
                         bool bidirectional, bool batch_first, const std::optional<Head> &head) {
  return describe({std::move(x), std::move(h0), std::move(c0), std::move(lengths), packed,
                   input_size, hidden_size, proj_size, num_layers, bidirectional, batch_first,
                   head});
}

} // namespace lstm_fastkernels
