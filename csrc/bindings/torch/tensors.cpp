#include "bindings/torch/tensors.h"

#include <algorithm>

namespace lstm_fastkernels {
namespace {

template <class Sizes> std::string text(const Sizes &sizes, char open, char close) {
  std::ostringstream out;
  out << open;
  for (size_t i = 0; i < sizes.size(); ++i)
    out << (i ? ", " : "") << sizes[i];
  out << close;
  return out.str();
}

} // namespace

Device device_of(const Tensor &t) {
  Device device{};
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(t.get(), &device.type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(t.get(), &device.index));
  return device;
}

std::string text(const Device &device) {
  if (device.is_cpu())
    return "cpu";
  if (device.is_cuda())
    return "cuda:" + std::to_string(device.index);
  return "another device";
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

int thread_count() {
  uint32_t threads = 1;
  TORCH_ERROR_CODE_CHECK(torch_get_num_threads(&threads));
  return static_cast<int>(threads);
}

Tensor allocate(const std::vector<int64_t> &sizes, ScalarType type, const Device &device) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t i = sizes.size() - 1; i > 0; --i)
    if (__builtin_mul_overflow(strides[i], std::max<int64_t>(sizes[i], 1), &strides[i - 1]))
      require(false, "a tensor of ", text(sizes, '[', ']'), " is too large");
  const int32_t dtype = type == ScalarType::Half       ? aoti_torch_dtype_float16()
                        : type == ScalarType::BFloat16 ? aoti_torch_dtype_bfloat16()
                        : type == ScalarType::Byte     ? aoti_torch_dtype_uint8()
                        : type == ScalarType::Char     ? aoti_torch_dtype_int8()
                        : type == ScalarType::Int      ? aoti_torch_dtype_int32()
                                                       : aoti_torch_dtype_float32();
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.data(),
                                                  strides.data(), dtype, device.type, device.index,
                                                  &handle));
  return Tensor(handle);
}

void check_device(const char *name, const Tensor &t, const Device &expected) {
  const Device device = device_of(t);
  if (device == expected)
    return;
  require(false, name, " must be on ", text(expected), ", where the weights are, got ",
          text(device));
}

void check_on_cpu(const char *name, const Tensor &t) {
  if (t.is_cpu())
    return;
  require(false, name, " must be on the CPU, got ", text(device_of(t)));
}

void check_bytes(const char *name, const Tensor &t) {
  check_type(name, t, ScalarType::Byte);
  require(t.dim() == 1 && t.is_contiguous(), name, " must be a plain byte vector");
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
  require(t.scalar_type() == expected, name, " must be of dtype ", text(expected), ", got ",
          text(t.scalar_type()));
}

IdType id_type(const char *name, const Tensor &t) {
  switch (t.scalar_type()) {
  case ScalarType::Int:
    return IdType::int32;
  case ScalarType::Long:
    return IdType::int64;
  default:
    throw std::invalid_argument(std::string(name) + " must be token ids, int64 or int32, got " +
                                text(t.scalar_type()));
  }
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

} // namespace lstm_fastkernels
