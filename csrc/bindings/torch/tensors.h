// Tensors on torch's stable ABI: what the ops ask of them, and memory for new ones.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "lstm_fastkernels/data_type.h"

namespace lstm_fastkernels {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <class... Parts> void require(bool condition, const Parts &...parts) {
  if (condition)
    return;
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

// torch's numbers for a device.
struct Device {
  int32_t type;
  int32_t index;

  static Device cpu() { return {aoti_torch_device_type_cpu(), -1}; }
  bool is_cpu() const { return type == aoti_torch_device_type_cpu(); }
  bool is_cuda() const { return type == aoti_torch_device_type_cuda(); }
  bool operator==(const Device &other) const {
    return type == other.type && (index == other.index || is_cpu());
  }
};

Device device_of(const Tensor &t);

std::string text(const Device &device);
const char *text(ScalarType type);

// As of torch.set_num_threads.
int thread_count();

// Contiguous and not initialized; of float32, float16, bfloat16, uint8, int8 or int32.
Tensor allocate(const std::vector<int64_t> &sizes, ScalarType type, const Device &device);

// Each throws, naming the tensor, unless it is as expected.
void check_device(const char *name, const Tensor &t, const Device &expected);
void check_shape(const char *name, const Tensor &t, const std::vector<int64_t> &expected);
void check_type(const char *name, const Tensor &t, ScalarType expected);
void check_on_cpu(const char *name, const Tensor &t);
void check_bytes(const char *name, const Tensor &t);

DataType data_type(const char *name, const Tensor &t);
IdType id_type(const char *name, const Tensor &t);

// Asks first: the call costs a trip through torch's dispatcher.
inline void make_contiguous(Tensor &t) {
  if (!t.is_contiguous())
    t = torch::stable::contiguous(t);
}

// The last dimension must be contiguous; other strides are free.
inline void make_rows_contiguous(Tensor &t) {
  const int64_t last = t.dim() - 1;
  if (t.stride(last) != 1 && t.size(last) != 1)
    t = torch::stable::contiguous(t);
}

} // namespace lstm_fastkernels
