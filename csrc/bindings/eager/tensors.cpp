#include "bindings/eager/tensors.h"

#include <c10/core/CPUAllocator.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/python_variable.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <memory>
#include <utility>

namespace lstm_fastkernels {
namespace {

using c10::DispatchKey;
using c10::DispatchKeySet;

// What torch makes of a tensor's kinds: any more would be a wrapper, a lazy bit, a layout or a
// device of its own. Those made in inference mode lack the last two.
constexpr DispatchKeySet kPlain{DispatchKey::CPU, DispatchKey::AutocastCPU,
                                DispatchKey::AutogradCPU, DispatchKey::ADInplaceOrView};

constexpr size_t kAlignment = 64;

c10::TensorImpl &seen(PyObject *tensor) {
  return *THPVariable_Unpack(tensor).unsafeGetTensorImpl();
}

bool is_plain(const c10::TensorImpl &tensor) {
  const DispatchKeySet keys = tensor.key_set();
  return keys.has(DispatchKey::CPU) && (keys | kPlain) == kPlain;
}

std::optional<DataType> data_type(c10::ScalarType type) {
  switch (type) {
  case c10::ScalarType::Float:
    return DataType::float32;
  case c10::ScalarType::Half:
    return DataType::float16;
  case c10::ScalarType::BFloat16:
    return DataType::bfloat16;
  default:
    return std::nullopt;
  }
}

caffe2::TypeMeta type_meta(DataType type) {
  return c10::scalarTypeToTypeMeta(type == DataType::float32   ? c10::ScalarType::Float
                                   : type == DataType::float16 ? c10::ScalarType::Half
                                                               : c10::ScalarType::BFloat16);
}

// malloc's, which is quicker than an aligned allocation, is what it frees.
c10::DataPtr allocate_aligned(size_t bytes) {
  size_t space;
  if (__builtin_add_overflow(bytes, kAlignment - 1, &space))
    return {};
  void *const memory = std::malloc(space), *aligned = memory;
  if (!memory)
    return {};
  std::align(kAlignment, bytes, aligned, space);
  return {aligned, memory, &std::free, c10::DeviceType::CPU};
}

} // namespace

bool is_plain_class(PyObject *object) {
  return Py_IS_TYPE(object, reinterpret_cast<PyTypeObject *>(THPVariableClass));
}

int64_t version_of(PyObject *tensor) {
  c10::TensorImpl &impl = seen(tensor);
  return impl.is_inference() ? -1 : impl.version_counter().current_version();
}

bool requires_grad(PyObject *tensor) { return seen(tensor).requires_grad(); }

bool grad_enabled() { return c10::GradMode::is_enabled(); }

bool note_writes(Tensors tensors) {
  if (!c10::InferenceMode::is_enabled())
    for (PyObject *const tensor : tensors)
      if (seen(tensor).is_inference())
        return false;
  for (PyObject *const tensor : tensors)
    if (c10::TensorImpl &impl = seen(tensor); !impl.is_inference())
      impl.bump_version();
  return true;
}

bool TorchTensor::take(PyObject *object) {
  if (!is_plain_class(object))
    return false;
  c10::TensorImpl &tensor = seen(object);
  if (!is_plain(tensor))
    return false;
  try {
    const auto sizes = tensor.sizes(), strides = tensor.strides();
    sizes_ = sizes.data();
    strides_ = strides.data();
    dims_ = static_cast<int>(sizes.size());
    // Memory that is shared until one of its tensors is written becomes the tensor's own.
    data_ = static_cast<char *>(tensor.mutable_data());
  } catch (...) { // it has none, or none that may be seen
    return false;
  }
  const c10::ScalarType type = tensor.dtype().toScalarType();
  type_ = data_type(type);
  id_type_ = type == c10::ScalarType::Long  ? IdType::int64
             : type == c10::ScalarType::Int ? IdType::int32
                                            : IdType::none;
  item_bytes_ = static_cast<int64_t>(tensor.itemsize());
  return data_;
}

bool TorchTensor::rows_are_contiguous() const {
  return size_from_end(-1) == 1 || stride(dims() - 1) == 1;
}

bool TorchTensor::is(std::initializer_list<int64_t> sizes) const {
  if (!std::equal(sizes.begin(), sizes.end(), sizes_, sizes_ + dims_))
    return false;
  int64_t expected = 1;
  for (int i = dims() - 1; i >= 0; --i) {
    if (size(i) != 1 && stride(i) != expected)
      return false;
    expected *= size(i);
  }
  return true;
}

char *TorchTensor::end() const {
  int64_t last = 0;
  for (int i = 0; i < dims(); ++i)
    last += (size(i) - 1) * stride(i);
  return data_ + (last + 1) * item_bytes_;
}

bool TorchTensor::overlaps(const TorchTensor &other) const {
  const std::less<const void *> before;
  return before(data_, other.end()) && before(other.data_, end());
}

NewTensor::~NewTensor() {
  if (tensor_)
    c10::intrusive_ptr<c10::TensorImpl>::reclaim(tensor_);
}

bool NewTensor::allocate(DataType type, int dims, const int64_t *sizes) {
  int64_t bytes = bytes_of(type);
  for (int i = 0; i < dims; ++i)
    if (__builtin_mul_overflow(bytes, sizes[i], &bytes))
      return false;
  c10::DataPtr memory = allocate_aligned(static_cast<size_t>(bytes));
  data_ = memory.get();
  if (!data_)
    return false;
  try {
    auto storage = c10::make_intrusive<c10::StorageImpl>(
        c10::StorageImpl::use_byte_size_t(), static_cast<size_t>(bytes), std::move(memory),
        c10::GetCPUAllocator(), /*resizable=*/true);
    auto tensor = c10::make_intrusive<c10::TensorImpl>(
        std::move(storage), DispatchKeySet(DispatchKey::CPU), type_meta(type));
    tensor->set_sizes_contiguous({sizes, static_cast<size_t>(dims)});
    tensor_ = tensor.release();
  } catch (...) {
    return false;
  }
  return true;
}

int64_t NewTensor::stride(int i) const { return tensor_->strides()[static_cast<size_t>(i)]; }

PyObject *NewTensor::release() {
  try {
    return THPVariable_Wrap(
        at::Tensor(c10::intrusive_ptr<c10::TensorImpl>::reclaim(std::exchange(tensor_, nullptr))));
  } catch (const std::exception &error) {
    if (!PyErr_Occurred())
      PyErr_SetString(PyExc_RuntimeError, error.what());
    return nullptr;
  }
}

} // namespace lstm_fastkernels
