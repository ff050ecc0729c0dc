#include "bindings/torch/cuda_kernels.h"

#ifdef LSTM_FASTKERNELS_CUDA

#include <dlfcn.h>

#include <cstring>

#include "cuda/host/unpack.h"
#include "lstm_fastkernels/cuda.h"

namespace lstm_fastkernels {
namespace {

constexpr size_t kWord = sizeof(int64_t);

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
  Header header(cuda::header_bytes(shape) / kWord);
  std::memcpy(header.data(), packed.const_data_ptr(), header.size() * kWord);
  return {packed, header};
}

std::vector<UnpackedTensor> unpack_from_cuda(const Tensor &packed) {
  return cuda::unpack(packed.const_data_ptr(), static_cast<size_t>(packed.numel()));
}

CudaStack::CudaStack(const Tensor &packed, const Header &header)
    : device_(device_of(packed)),
      stack_(std::make_shared<cuda::DeviceStack>(header.data(), header.size() * kWord,
                                                 packed.const_data_ptr(),
                                                 static_cast<size_t>(packed.numel()))) {
  Tensor copy = allocate({packed.numel()}, ScalarType::Byte, Device::cpu());
  torch::stable::copy_(copy, packed);
  cuda::check_packed(header.data(), header.size() * kWord, copy.const_data_ptr(),
                     static_cast<size_t>(copy.numel()));
}

const LstmShape &CudaStack::shape() const { return stack_->shape(); }

void CudaStack::run(const LstmArguments &arguments) const {
  cuda::Queue queue;
  queue.device = device_.index;
  queue.stream = current_stream(device_.index);
  queue.workspace_bytes = cuda::workspace_bytes(*stack_, arguments);
  // Freed on return, but to the stream alone: whoever gets it next comes after this call.
  const Tensor workspace =
      allocate({static_cast<int64_t>(queue.workspace_bytes)}, ScalarType::Byte, device_);
  queue.workspace = workspace.mutable_data_ptr();
  cuda::lstm_forward(*stack_, arguments, queue);
}

std::vector<std::string> CudaStack::describe(const LstmArguments &arguments) const {
  return cuda::describe(cuda::explain(*stack_, arguments, device_.index));
}

std::string CudaStack::brief(const LstmArguments &arguments) const {
  return cuda::brief(cuda::explain(*stack_, arguments, device_.index));
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
std::vector<UnpackedTensor> unpack_from_cuda(const Tensor &) { refuse(); }
CudaStack::CudaStack(const Tensor &, const Header &) { refuse(); }
const LstmShape &CudaStack::shape() const { refuse(); }
void CudaStack::run(const LstmArguments &) const { refuse(); }
std::vector<std::string> CudaStack::describe(const LstmArguments &) const { refuse(); }
std::string CudaStack::brief(const LstmArguments &) const { refuse(); }

} // namespace lstm_fastkernels

#endif
