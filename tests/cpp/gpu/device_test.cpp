// A CUDA device gives the bits of the CPU's kernels. compute-sanitizer watches the short runs,
// whose names end in on_a_device.
#include <cuda_runtime.h>

#include "check.h"
#include "lstm_fastkernels/cuda.h"
#include "stack.h"

namespace lstm_fastkernels {
namespace {

void require(cudaError_t error) {
  if (error != cudaSuccess)
    check::fail(__FILE__, __LINE__, cudaGetErrorString(error));
}

// Device memory of exactly so many bytes, filled with marks.
class DeviceMemory {
public:
  explicit DeviceMemory(size_t bytes) {
    require(cudaMalloc(&data_, bytes));
    require(cudaMemset(data_, 0xcd, bytes));
  }
  template <class T>
  explicit DeviceMemory(const std::vector<T> &from) : DeviceMemory(from.size() * sizeof(T)) {
    require(cudaMemcpy(data_, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  DeviceMemory(const DeviceMemory &) = delete;
  ~DeviceMemory() { cudaFree(data_); }

  void *data() const { return data_; }
  void copy_to(std::vector<float> &to) const {
    require(cudaMemcpy(to.data(), data_, to.size() * sizeof(float), cudaMemcpyDeviceToHost));
  }

private:
  void *data_ = nullptr;
};

// A stack packed for the CPU and on a device.
class Twins {
public:
  explicit Twins(const SourceStack &stack) : Twins(stack.held()) {}

  void check(int64_t T, int64_t B, const std::vector<int64_t> &lengths = {}) const {
    WITH("input ", shape_.input_size, " hidden ", shape_.hidden_size, " proj ", shape_.proj_size,
         " layers ", shape_.num_layers, " directions ", shape_.num_directions, " precision ",
         precision_name(precision_), " T ", T, " B ", B);
    const Sequence sequence = random_sequence(shape_, T, B, 2);
    check_same(forward_on_device(sequence, lengths), forward(on_cpu_, sequence, 1, lengths));
  }

private:
  explicit Twins(const HeldStack &stack)
      : shape_(stack.shape), precision_(stack.layers.front().ih.precision), on_cpu_(stack.packed()),
        packed_(packed_for_device(stack)), weights_(packed_) {}

  static std::vector<uint8_t> packed_for_device(const HeldStack &stack) {
    const auto layers = stack.views();
    const cuda::PackPlan plan(stack.shape, layers.data());
    std::vector<uint8_t> packed(plan.bytes());
    plan.write(packed.data(), packed.size());
    return packed;
  }

  Result forward_on_device(const Sequence &sequence, const std::vector<int64_t> &lengths) const {
    const DeviceMemory x(sequence.x), h0(sequence.h0), c0(sequence.c0);
    const cuda::DeviceStack stack{packed_.data(), cuda::header_bytes(shape_), weights_.data(),
                                  packed_.size()};
    Result result;
    LstmArguments a = arguments_for(sequence, result);
    const DeviceMemory y(result.y.size() * sizeof(float)), h(result.h.size() * sizeof(float)),
        c(result.c.size() * sizeof(float));
    a.x = x.data();
    a.y = y.data();
    a.h0 = h0.data();
    a.c0 = c0.data();
    a.h_n = h.data();
    a.c_n = c.data();
    a.lengths = lengths.empty() ? nullptr : lengths.data();

    cuda::Queue queue;
    queue.workspace_bytes = cuda::workspace_bytes(stack, a);
    const DeviceMemory workspace(queue.workspace_bytes);
    queue.workspace = workspace.data();
    cuda::lstm_forward(stack, a, queue);
    require(cudaDeviceSynchronize());
    y.copy_to(result.y);
    h.copy_to(result.h);
    c.copy_to(result.c);
    return result;
  }

  LstmShape shape_;
  Precision precision_;
  std::vector<uint8_t> on_cpu_, packed_;
  DeviceMemory weights_;
};

SourceStack some_stack(const TypedShape &shape) { return random_stack(shape, Weights::any, 1); }

// The dense stack, and one that keeps a tenth of its 16x32 blocks.
std::vector<SourceStack> dense_and_sparse(const SourceStack &stack) {
  return {stack, in_blocks(stack, {16, 32}, 0.1f)};
}

TEST(sizes_on_a_device) {
  for (Precision precision : kPrecisions)
    for (int64_t hidden : {1, 19, 64, 151, 256}) {
      const Twins twins(some_stack(shape_of(33, hidden, 0, 1, 1, precision)));
      for (int64_t batch : {1, 9})
        twins.check(4, batch);
    }
}

TEST(stacks_on_a_device) {
  for (Precision precision : kPrecisions)
    for (int64_t layers : {1, 3})
      for (int64_t directions : {1, 2})
        for (int64_t proj : {0, 10})
          Twins(some_stack(shape_of(7, 40, proj, layers, directions, precision))).check(3, 5);
}

TEST(lengths_on_a_device) {
  for (Precision precision : kPrecisions)
    for (int64_t hidden : {40, 520})
      Twins(some_stack(shape_of(7, hidden, 0, 2, 2, precision))).check(5, 4, {5, 1, 3, 2});
}

TEST(blocks_on_a_device) {
  for (Precision precision : kPrecisions)
    for (const BlockShape &block : kBlockShapes)
      Twins(in_blocks(some_stack(shape_of(32, 96, 0, 1, 1, precision)), block, 0.2f)).check(3, 5);
}

TEST(single_steps_on_a_device) {
  for (Precision precision : kPrecisions)
    for (int64_t hidden : {16, 64, 530}) {
      const Twins twins(some_stack(shape_of(70, hidden, 0, 2, 2, precision)));
      for (int64_t batch : {1, 8, 17})
        twins.check(1, batch);
    }
}

TEST(a_precision_for_each_matrix_on_a_device) {
  for (uint64_t seed = 0; seed < 6; ++seed)
    for (int64_t proj : {0, 30}) {
      const Twins twins(mixed_stack(shape_of(33, 70, proj, 3, 2), seed));
      for (int64_t T : {1, 4})
        twins.check(T, 9);
    }
}

// More rows than persistent blocks take, and a projection.
TEST(plain_steps_on_a_device) {
  for (Precision precision : kPrecisions)
    for (int64_t proj : {0, 100}) {
      const Twins twins(some_stack(shape_of(70, 130, proj, 2, 2, precision)));
      for (int64_t batch : {1, 9, 260})
        twins.check(3, batch);
    }
}

// Each a chunk of 64 steps behind the one below.
TEST(layers_side_by_side) {
  for (Precision precision : {kInt8, kInt16})
    for (int64_t hidden : {40, 300}) {
      const Twins twins(some_stack(shape_of(7, hidden, 0, 3, 1, precision)));
      for (int64_t batch : {1, 9})
        twins.check(150, batch);
    }
}

// Every way to share a step among blocks.
TEST(steps_of_large_layers) {
  for (int64_t hidden : {300, 512, 520, 768, 1030, 2048})
    for (const SourceStack &stack : dense_and_sparse(some_stack(shape_of(33, hidden)))) {
      const Twins twins(stack);
      for (int64_t batch : {1, 16, 33, 64, 100})
        twins.check(6, batch);
    }
}

// The instances that the sizes above leave out.
TEST(every_kind_of_step) {
  for (int64_t hidden : {300, 600, 800, 1100, 1300, 1600, 1900})
    for (SourceStack &stack : dense_and_sparse(some_stack(shape_of(20, hidden))))
      for (Precision precision : {kInt8, kInt16}) {
        stack.for_each_matrix([&](SourceMatrix &m) { m.precision = precision; });
        const Twins twins(stack);
        for (int64_t batch : {2, 12})
          twins.check(3, batch);
      }
}

} // namespace
} // namespace lstm_fastkernels
