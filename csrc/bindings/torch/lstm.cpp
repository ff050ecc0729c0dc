#include "lstm_fastkernels/lstm.h"

#include <memory>
#include <new>
#include <utility>

#include "bindings/torch/eager.h"
#include "bindings/torch/ops.h"
#include "bindings/torch/stack_cache.h"
#include "runtime/stack.h"

namespace lstm_fastkernels {
namespace {

// A packed stack, parsed: of one of the two.
struct ParsedStack {
  std::optional<PackedStack> on_cpu;
  std::optional<CudaStack> on_cuda;
  Header header; // of the latter

  const LstmShape &shape() const { return on_cpu ? on_cpu->shape : on_cuda->shape(); }
  bool takes_ids() const { return on_cpu && on_cpu->takes_ids(); }
};
using Stacks = StackCache<ParsedStack>;

Stacks &stacks() {
  static Stacks all;
  return all;
}

ParsedStack parse(const Tensor &packed, const std::optional<Header> &header) {
  ParsedStack stack;
  if (header) {
    stack.on_cuda.emplace(packed, *header);
    stack.header = *header;
  } else {
    stack.on_cpu.emplace(packed.const_data_ptr(), static_cast<size_t>(packed.numel()));
  }
  return stack;
}

// The op's arguments.
struct Inputs {
  Tensor x;
  std::optional<Tensor> h0, c0, lengths;
  const Tensor &packed;
  const std::vector<int64_t> &sizes;
  bool batch_first;
  const std::optional<Header> &header;

  bool packed_sequence() const { return x.dim() == 2; }
};

// What they ask for.
struct Call {
  Device device;
  LstmShape shape;
  std::vector<int64_t> h_shape, c_shape;
  ScalarType y_type, state_type;
  std::vector<int64_t> counts; // lengths or batch_sizes: a copy, another thread may write them
  LstmArguments arguments;     // without x, its strides and the outputs
  std::shared_ptr<const ParsedStack> stack;
};

// Throws unless they fit each other. Makes contiguous what must be.
Call check(Inputs &in) {
  Call call{};
  require(in.packed_sequence() || in.x.dim() == 3, "input must have 2 or 3 dimensions, got ",
          in.x.dim());
  call.device = device_of(in.packed);
  call.shape = shape_from(in.sizes);
  const LstmShape &shape = call.shape;
  const Device &device = call.device;
  require(device.is_cpu() || device.is_cuda(),
          "compressed LSTMs run on the CPU and on CUDA devices: move the module to one");
  check_device("input", in.x, device);
  check_bytes("packed weights", in.packed);
  if (device.is_cuda())
    require_cuda();
  require(in.packed.numel() > 0, "there are no packed weights: load_state_dict makes them");
  require(device.is_cuda() || !in.header,
          "the weights were packed for CUDA, the tensors are on the CPU");
  require(device.is_cpu() || in.header,
          "the weights were packed for the CPU, the tensors are on a CUDA device");
  call.stack = stacks().find(in.packed, [&] { return parse(in.packed, in.header); });
  if (in.header && call.stack->header != *in.header)
    call.stack = std::make_shared<const ParsedStack>(parse(in.packed, in.header));
  check_made_for(call.stack->shape(), shape);

  const bool ids = call.stack->takes_ids();
  const int64_t columns = ids ? 1 : shape.input_size;
  require(in.x.size(in.x.dim() - 1) == columns,
          "input.size(-1) must be equal to input_size. Expected ", columns, ", got ",
          in.x.size(in.x.dim() - 1));
  require(!in.packed_sequence() || in.lengths,
          "2-D input is the data of a PackedSequence and needs batch_sizes");

  LstmArguments &a = call.arguments;
  if (ids)
    a.id_type = id_type("input", in.x);
  else
    a.data_type = data_type("input", in.x);
  call.y_type = ids ? ScalarType::Float : in.x.scalar_type();
  if (in.lengths) {
    const char *const name = in.packed_sequence() ? "batch_sizes" : "lengths";
    check_on_cpu(name, *in.lengths);
    check_type(name, *in.lengths, ScalarType::Long);
    require(in.lengths->dim() == 1, name, " must have 1 dimension, got ", in.lengths->dim());
    make_contiguous(*in.lengths);
    const int64_t *const counts = in.lengths->const_data_ptr<int64_t>();
    call.counts.assign(counts, counts + in.lengths->numel());
  }
  if (in.packed_sequence()) {
    a.time_steps = static_cast<int64_t>(call.counts.size());
    require(a.time_steps > 0, "Expected sequence length to be larger than 0 in RNN");
    a.batch_size = call.counts.front();
    a.batch_sizes = call.counts.data();
    int64_t left = in.x.size(0);
    for (const int64_t rows : call.counts) {
      require(rows >= 0 && rows <= left, "batch_sizes must add up to input.size(0). Expected ",
              in.x.size(0), ", got ", rows, " where ", left, " rows are left");
      left -= rows;
    }
    require(left == 0, "batch_sizes must add up to input.size(0). Expected ", in.x.size(0),
            ", got ", in.x.size(0) - left);
  } else {
    a.time_steps = in.x.size(in.batch_first ? 1 : 0);
    a.batch_size = in.x.size(in.batch_first ? 0 : 1);
    require(a.time_steps > 0, "Expected sequence length to be larger than 0 in RNN");
    if (in.lengths) {
      check_shape("lengths", *in.lengths, {a.batch_size});
      a.lengths = call.counts.data();
    }
  }

  call.h_shape = {shape.num_cells(), a.batch_size, shape.output_size()};
  call.c_shape = {shape.num_cells(), a.batch_size, shape.hidden_size};
  call.state_type = call.y_type;
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
    require(state_type == ScalarType::Float || state_type == call.y_type,
            "h0 and c0 must be float32 or of the input's dtype, got ", text(state_type));
    a.state_type = data_type("h0", *in.h0);
    make_contiguous(*in.h0);
    make_contiguous(*in.c0);
    a.h0 = in.h0->const_data_ptr();
    a.c0 = in.c0->const_data_ptr();
  } else {
    a.state_type = a.data_type;
  }

  if (device.is_cpu())
    a.threads = thread_count();
  return call;
}

std::tuple<Tensor, Tensor, Tensor> run(Inputs in) {
  const Call call = check(in);
  LstmArguments a = call.arguments;
  Tensor &x = in.x;
  make_rows_contiguous(x);
  std::vector<int64_t> y_shape(x.sizes().begin(), x.sizes().end());
  y_shape.back() = call.shape.num_directions * call.shape.output_size();
  Tensor y = allocate(y_shape, call.y_type, call.device);
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
  if (call.stack->on_cpu)
    run_stack(*call.stack->on_cpu, a);
  else
    call.stack->on_cuda->run(a);
  return {y, h_n, c_n};
}

std::string describe_call(Inputs in, bool brief) {
  const Call call = check(in);
  const LstmArguments &a = call.arguments;
  if (brief)
    return call.stack->on_cuda ? call.stack->on_cuda->brief(a) : "";
  std::ostringstream lines;
  lines << "on " << text(call.device) << ", T=" << a.time_steps << ", B=" << a.batch_size;
  for (const std::string &line : call.stack->on_cpu ? describe(plan_call(*call.stack->on_cpu, a))
                                                    : call.stack->on_cuda->describe(a))
    lines << '\n' << line;
  return lines.str();
}

} // namespace

std::tuple<Tensor, Tensor, Tensor> lstm(Tensor x, std::optional<Tensor> h0,
                                        std::optional<Tensor> c0, std::optional<Tensor> lengths,
                                        const Tensor &packed, const std::vector<int64_t> &shape,
                                        bool batch_first, const std::optional<Header> &header) {
  return run({std::move(x), std::move(h0), std::move(c0), std::move(lengths), packed, shape,
              batch_first, header});
}

std::string explain_lstm(Tensor x, std::optional<Tensor> h0, std::optional<Tensor> c0,
                         std::optional<Tensor> lengths, const Tensor &packed,
                         const std::vector<int64_t> &shape, bool batch_first,
                         const std::optional<Header> &header, bool brief) {
  return describe_call({std::move(x), std::move(h0), std::move(c0), std::move(lengths), packed,
                        shape, batch_first, header},
                       brief);
}

namespace {

using Held = std::shared_ptr<const ParsedStack>;
static_assert(sizeof(Held) == sizeof(HeldLstm) && alignof(Held) == alignof(HeldLstm));

bool eager_hold(const void *packed, int64_t bytes, HeldLstm *lstm, LstmShape *shape,
                bool *takes_ids) {
  Held known = stacks().known(packed, bytes);
  if (!known || !known->on_cpu)
    return false;
  *shape = known->shape();
  *takes_ids = known->takes_ids();
  new (lstm) Held(std::move(known));
  return true;
}

void eager_drop(HeldLstm *lstm) { std::launder(reinterpret_cast<Held *>(lstm))->~Held(); }

bool eager_run(const HeldLstm *lstm, LstmArguments a) {
  try {
    a.threads = thread_count();
    run_stack(*(*std::launder(reinterpret_cast<const Held *>(lstm)))->on_cpu, a);
    return true;
  } catch (const std::exception &) {
    return false;
  }
}

constexpr EagerFunctions kEager{&eager_hold, &eager_drop, &eager_run};

} // namespace

void release_all() {
  stacks().clear();
  release_memory();
}

} // namespace lstm_fastkernels

void lfk_forget_packed(const void *data) { lstm_fastkernels::stacks().forget(data); }
const void *lfk_eager_functions() { return &lstm_fastkernels::kEager; }
const char *lfk_built_for_torch() { return BUILT_FOR_TORCH; }
