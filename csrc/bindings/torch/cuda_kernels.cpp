#include "bindings/torch/cuda_kernels.h"

#ifdef LSTM_FASTKERNELS_CUDA

#include <dlfcn.h>

#include <cstring>

#include "lstm_fastkernels/cuda.h"

namespace lstm_fastkernels {
namespace {

constexpr size_t kWord = sizeof(int64_t);

cuda::DeviceStack stack_of(const Tensor &packed, const Header &header) {
  cuda::DeviceStack stack;
  stack.head = header.data();
  stack.head_bytes = header.size() * kWord;
  stack.packed = packed.const_data_ptr();
  stack.packed_bytes = static_cast<size_t>(packed.numel());
  return stack;
}

// Found while running: a torch for CPUs alone does not have it, and no library that this one links
// brings in the one that does.
void *current_stream(int32_t device) {
  static const auto get = [] {
    void *const library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    void *const found = library ? dlsym(library, "aoti_torch_get_current_cuda_stream") : nullptr;
    return reinterpret_cast<AOTITorchError (*)(int32_t, void **)>(found);
  }();
  require(get != nullptr, "this torch has no CUDA: aoti_torch_get_current_cuda_stream is missing");
  void *stream = nullptr;
  TORCH_ERROR_CODE_CHECK(get(device, &stream));
  return stream;
}

} // namespace

bool cuda_built() { return true; }
void require_cuda() {}

std::pair<Tensor, Header> pack_for_cuda(const LstmShape &shape, const CellWeights *cells) {
  const cuda::PackPlan plan(shape, cells);
  Tensor packed = allocate({static_cast<int64_t>(plan.bytes())}, ScalarType::Byte, Device::cpu());
  plan.write(packed.mutable_data_ptr(), plan.bytes());
  Header header(cuda::head_bytes(shape) / kWord);
  std::memcpy(header.data(), packed.const_data_ptr(), header.size() * kWord);
  return {packed, header};
}

LstmShape cuda_packed_shape(const Tensor &packed, const Header &header) {
  return cuda::packed_shape(stack_of(packed, header));
}

void run_on_cuda(const Tensor &packed, const Header &header, const LstmArguments &arguments) {
  const cuda::DeviceStack stack = stack_of(packed, header);
  require(reinterpret_cast<uintptr_t>(stack.packed) % 16 == 0,
          "packed weights must be aligned to 16 bytes");
  const Device device = device_of(packed);
  cuda::Queue queue;
  queue.device = device.index;
  queue.stream = current_stream(device.index);
  queue.workspace_bytes = cuda::workspace_bytes(stack, arguments);
  // Freed on return, but to the stream alone: whoever gets it next comes after this call.
  const Tensor workspace =
      allocate({static_cast<int64_t>(queue.workspace_bytes)}, ScalarType::Byte, device);
  queue.workspace = workspace.mutable_data_ptr();
  cuda::lstm_forward(stack, arguments, queue);
}

std::vector<std::string> explain_on_cuda(const Tensor &packed, const Header &header,
                                         const LstmArguments &arguments) {
  return cuda::explain(stack_of(packed, header), arguments, device_of(packed).index);
}

} // namespace lstm_fastkernels

#else

namespace lstm_fastkernels {
namespace {

[[noreturn]] void refuse() {
  throw std::runtime_error("this lstm_fastkernels was built without CUDA kernels: build it where "
                           "the CUDA toolkit's nvcc is found, or move the module to the CPU");
}

} // namespace

bool cuda_built() { return false; }
void require_cuda() { refuse(); }
std::pair<Tensor, Header> pack_for_cuda(const LstmShape &, const CellWeights *) { refuse(); }
LstmShape cuda_packed_shape(const Tensor &, const Header &) { refuse(); }
void run_on_cuda(const Tensor &, const Header &, const LstmArguments &) { refuse(); }
std::vector<std::string> describe_on_cuda(const Tensor &, const Header &, const LstmArguments &) {
  refuse();
}
std::string brief_on_cuda(const Tensor &, const Header &, const LstmArguments &) { refuse(); }

} // namespace lstm_fastkernels

#endif
