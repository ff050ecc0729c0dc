#include "lstm_fastkernels/model.h"

#include <new>
#include <string>

#include "common/fail.h"
#include "runtime/stack.h"
#include "weights/packed_origin.h"

namespace lstm_fastkernels {

constexpr size_t kAlignment = 64;

struct Lstm::Packed {
  std::shared_ptr<const void> memory;
  size_t bytes;
  PackedStack stack; // somewhere in the memory
  bool shares_file;

  static std::shared_ptr<const Packed> make(const PackPlan &plan) {
    const size_t bytes = plan.bytes();
    const auto free = [](void *p) { ::operator delete(p, std::align_val_t{kAlignment}); };
    const std::shared_ptr<void> memory(::operator new(bytes, std::align_val_t{kAlignment}), free);
    plan.write(memory.get(), bytes);
    return std::make_shared<const Packed>(
        Packed{memory, bytes, PackedStack(memory.get(), bytes), false});
  }
};

Lstm::Lstm(const LstmShape &shape, const CellWeights *cells)
    : packed_(Packed::make(PackPlan(shape, cells))) {}

std::optional<Lstm> Lstm::in_place(std::shared_ptr<const void> memory, const void *packed,
                                   size_t bytes, const std::string &hash, const LstmShape &shape,
                                   const std::vector<Precision> &precisions,
                                   const std::map<std::string, TensorView> &tensors) {
  std::optional<PackedStack> stack = packed_from(packed, bytes, hash, shape, precisions, tensors);
  if (!stack)
    return std::nullopt;
  return Lstm(
      std::make_shared<const Packed>(Packed{std::move(memory), bytes, std::move(*stack), true}));
}

const LstmShape &Lstm::shape() const { return packed_->stack.shape; }

bool Lstm::takes_ids() const { return packed_->stack.takes_ids(); }

size_t Lstm::packed_bytes() const { return packed_->bytes; }

bool Lstm::shares_file() const { return packed_->shares_file; }

void Lstm::forward(const LstmArguments &arguments) const { run_stack(packed_->stack, arguments); }

void Lstm::forward(const float *x, int64_t time_steps, int64_t batch_size, State &state, float *y,
                   const ForwardOptions &options) const {
  run(x, IdType::none, time_steps, batch_size, state, y, options);
}

void Lstm::forward_ids(const int32_t *ids, int64_t time_steps, int64_t batch_size, State &state,
                       float *y, const ForwardOptions &options) const {
  run(ids, IdType::int32, time_steps, batch_size, state, y, options);
}

void Lstm::forward_ids(const int64_t *ids, int64_t time_steps, int64_t batch_size, State &state,
                       float *y, const ForwardOptions &options) const {
  run(ids, IdType::int64, time_steps, batch_size, state, y, options);
}

void Lstm::run(const void *x, IdType id_type, int64_t time_steps, int64_t batch_size, State &state,
               float *y, const ForwardOptions &options) const {
  const LstmShape &sizes = shape();
  if (state.layers() != sizes.num_cells() || state.output_size() != sizes.output_size() ||
      state.hidden_size() != sizes.hidden_size)
    fail("state: it was made for another LSTM");
  if (state.batch_size() != batch_size)
    fail("state: it holds " + std::to_string(state.batch_size()) + " rows, batch_size is " +
         std::to_string(batch_size));
  const auto stride = [](int64_t given, int64_t count, int64_t inner) {
    int64_t contiguous;
    if (__builtin_mul_overflow(count, inner, &contiguous))
      fail("strides are out of range");
    return given ? given : contiguous;
  };
  const int64_t columns = sizes.num_directions * sizes.output_size();
  LstmArguments a;
  a.time_steps = time_steps;
  a.batch_size = batch_size;
  a.x = x;
  a.id_type = id_type;
  a.y = y;
  a.x_row_stride = stride(options.x_row_stride, 1, takes_ids() ? 1 : sizes.input_size);
  a.x_time_stride = stride(options.x_time_stride, batch_size, a.x_row_stride);
  a.y_row_stride = stride(options.y_row_stride, 1, columns);
  a.y_time_stride = stride(options.y_time_stride, batch_size, a.y_row_stride);
  a.lengths = options.lengths;
  a.h0 = a.h_n = state.h();
  a.c0 = a.c_n = state.c();
  a.threads = options.threads;
  forward(a);
}

} // namespace lstm_fastkernels
