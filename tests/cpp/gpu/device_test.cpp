// A CUDA device gives the bits of the CPU's kernels. compute-sanitizer watches the short runs,
// whose names end in on_a_device: `make gpu-check` builds and runs this.
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

Result forward_on_device(const SourceStack &stack, const Sequence &sequence,
                         const std::vector<int64_t> &lengths) {
  const HeldStack held = stack.held();
  const auto layers = held.views();
  std::vector<uint8_t> packed(cuda::packed_bytes(stack.shape, layers.data()));
  cuda::pack(stack.shape, layers.data(), packed.data(), packed.size());
  const DeviceMemory weights(packed), x(sequence.x), h0(sequence.h0), c0(sequence.c0);
  const cuda::DeviceStack on_device{packed.data(), cuda::header_bytes(stack.shape), weights.data(),
                                    packed.size()};
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
  queue.workspace_bytes = cuda::workspace_bytes(on_device, a);
  const DeviceMemory workspace(queue.workspace_bytes);
  queue.workspace = workspace.data();
  cuda::lstm_forward(on_device, a, queue);
  require(cudaDeviceSynchronize());
  y.copy_to(result.y);
  h.copy_to(result.h);
  c.copy_to(result.c);
  return result;
}

void check_as_on_cpu(const SourceStack &stack, int64_t T, int64_t B,
                     const std::vector<int64_t> &lengths = {}) {
  const LstmShape &shape = stack.shape;
  WITH("input ", shape.input_size, " hidden ", shape.hidden_size, " proj ", shape.proj_size,
       " layers ", shape.num_layers, " directions ", shape.num_directions, " bits ",
       shape.activation_bits, " T ", T, " B ", B);
  const Sequence sequence = random_sequence(shape, T, B, 2);
  check_same(forward_on_device(stack, sequence, lengths),
             forward(stack.packed(), sequence, 1, lengths));
}

TEST(sizes_on_a_device) {
  for (int bits : {8, 16, 32})
    for (int64_t hidden : {1, 19, 64, 151, 256})
      for (int64_t batch : {1, 9})
        check_as_on_cpu(random_stack(shape_of(33, hidden, 0, 1, 1, bits), Weights::any, 1), 4,
                        batch);
}

// Every way to share a step among blocks.
TEST(steps_of_large_layers) {
  for (int64_t hidden : {300, 512, 520, 768, 1030, 2048})
    for (int64_t batch : {1, 16, 33, 64, 100})
      for (float density : {1.0f, 0.1f}) {
        const SourceStack stack = random_stack(shape_of(33, hidden), Weights::any, 1);
        check_as_on_cpu(density < 1 ? in_blocks(stack, {16, 32}, density) : stack, 6, batch);
      }
}

// The instances that the sizes above leave out.
TEST(every_kind_of_step) {
  for (int64_t hidden : {300, 600, 800, 1100, 1300, 1600, 1900})
    for (int64_t batch : {2, 12})
      for (float density : {1.0f, 0.1f})
        for (int bits : {8, 16}) {
          const SourceStack stack =
              random_stack(shape_of(20, hidden, 0, 1, 1, bits), Weights::any, 1);
          check_as_on_cpu(density < 1 ? in_blocks(stack, {16, 32}, density) : stack, 3, batch);
        }
}

TEST(single_steps_on_a_device) {
  for (int bits : {8, 16, 32})
    for (int64_t hidden : {16, 64, 530})
      for (int64_t batch : {1, 8, 17})
        check_as_on_cpu(random_stack(shape_of(70, hidden, 0, 2, 2, bits), Weights::any, 1), 1,
                        batch);
}

// More rows than persistent blocks take, and a projection.
TEST(plain_steps_on_a_device) {
  for (int bits : {8, 16, 32})
    for (int64_t batch : {1, 9, 260})
      for (int64_t proj : {0, 100})
        check_as_on_cpu(random_stack(shape_of(70, 130, proj, 2, 2, bits), Weights::any, 1), 3,
                        batch);
}

TEST(stacks_on_a_device) {
  for (int bits : {8, 16, 32})
    for (int64_t layers : {1, 3})
      for (int64_t directions : {1, 2})
        for (int64_t proj : {0, 10})
          check_as_on_cpu(
              random_stack(shape_of(7, 40, proj, layers, directions, bits), Weights::any, 1), 3, 5);
}

// Each a chunk of 64 steps behind the one below.
TEST(layers_side_by_side) {
  for (int bits : {8, 16})
    for (int64_t hidden : {40, 300})
      for (int64_t batch : {1, 9})
        check_as_on_cpu(random_stack(shape_of(7, hidden, 0, 3, 1, bits), Weights::any, 1), 150,
                        batch);
}

TEST(blocks_on_a_device) {
  for (int bits : {8, 16, 32})
    for (const BlockShape &block : kBlockShapes)
      check_as_on_cpu(
          in_blocks(random_stack(shape_of(32, 96, 0, 1, 1, bits), Weights::any, 1), block, 0.2f), 3,
          5);
}

TEST(lengths_on_a_device) {
  for (int bits : {8, 16, 32})
    for (int64_t hidden : {40, 520})
      check_as_on_cpu(random_stack(shape_of(7, hidden, 0, 2, 2, bits), Weights::any, 1), 5, 4,
                      {5, 1, 3, 2});
}

} // namespace
} // namespace lstm_fastkernels
