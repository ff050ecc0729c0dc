#include "bindings/eager/tensors.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <utility>

#include "bindings/eager/function.h"

namespace lstm_fastkernels {
namespace {

const DLPackExchangeAPI *exchange;
PyTypeObject *tensor_class;

// An attribute, or a method without arguments, of all tensors: the C function behind it.
class Question {
public:
  // In the tables of the type that torch.Tensor is derived from.
  bool find(PyTypeObject *base, const char *name) {
    const auto *attribute = static_cast<const PyGetSetDef *>(PyType_GetSlot(base, Py_tp_getset));
    for (; attribute && attribute->name; ++attribute)
      if (std::strcmp(attribute->name, name) == 0)
        attribute_ = attribute;
    const auto *method = static_cast<const PyMethodDef *>(PyType_GetSlot(base, Py_tp_methods));
    for (; method && method->ml_name; ++method)
      if (std::strcmp(method->ml_name, name) == 0 && method->ml_flags == METH_NOARGS)
        method_ = method->ml_meth;
    return attribute_ || method_;
  }

  PyObject *operator()(PyObject *tensor) const {
    return attribute_ ? attribute_->get(tensor, attribute_->closure) : method_(tensor, nullptr);
  }

private:
  const PyGetSetDef *attribute_ = nullptr;
  PyCFunction method_ = nullptr;
};

// A view of a conjugate's imaginary part is negated when it is read: is_neg.
Question version_question, requires_grad_question, is_neg_question;

} // namespace

long long version_of(PyObject *tensor) {
  PyObject *const answer = version_question(tensor);
  const long long version = answer ? PyLong_AsLongLong(answer) : -1;
  Py_XDECREF(answer);
  return version;
}

int requires_grad(PyObject *tensor) { return is_true(requires_grad_question(tensor)); }

bool connect_tensors(PyObject *given_class) {
  tensor_class = reinterpret_cast<PyTypeObject *>(Py_NewRef(given_class));
  PyObject *const capsule = PyObject_GetAttrString(given_class, "__dlpack_c_exchange_api__");
  const auto *table = static_cast<const DLPackExchangeAPI *>(
      capsule ? PyCapsule_GetPointer(capsule, "dlpack_exchange_api") : nullptr);
  Py_XDECREF(capsule);
  if (table && table->header.version.major == DLPACK_MAJOR_VERSION &&
      table->dltensor_from_py_object_no_sync)
    exchange = table;
  auto *const base = static_cast<PyTypeObject *>(PyType_GetSlot(tensor_class, Py_tp_base));
  const bool found = base && version_question.find(base, "_version") &&
                     requires_grad_question.find(base, "requires_grad") &&
                     is_neg_question.find(base, "is_neg");
  PyErr_Clear();
  return found && exchange;
}

bool is_plain_class(PyObject *tensor) { return Py_IS_TYPE(tensor, tensor_class); }

bool TorchTensor::take_own(PyObject *tensor) {
  if (!is_plain_class(tensor))
    return false;
  if (exchange->dltensor_from_py_object_no_sync(tensor, &seen)) {
    PyErr_Clear();
    return false;
  }
  return seen.device.device_type == kDLCPU && seen.data && seen.strides;
}

bool TorchTensor::is_negated(PyObject *tensor) { return is_true(is_neg_question(tensor)) != 0; }

std::optional<DataType> TorchTensor::type() const {
  const DLDataType &type = seen.dtype;
  if (type.lanes == 1 && type.code == kDLFloat && type.bits == 32)
    return DataType::float32;
  if (type.lanes == 1 && type.code == kDLFloat && type.bits == 16)
    return DataType::float16;
  if (type.lanes == 1 && type.code == kDLBfloat && type.bits == 16)
    return DataType::bfloat16;
  return std::nullopt;
}

IdType TorchTensor::id_type() const {
  const DLDataType &type = seen.dtype;
  if (type.lanes != 1 || type.code != kDLInt)
    return IdType::none;
  return type.bits == 64 ? IdType::int64 : type.bits == 32 ? IdType::int32 : IdType::none;
}

bool TorchTensor::rows_are_contiguous() const {
  return size_from_end(-1) == 1 || stride(dims() - 1) == 1;
}

bool TorchTensor::is(std::initializer_list<int64_t> sizes) const {
  if (!std::equal(sizes.begin(), sizes.end(), seen.shape, seen.shape + seen.ndim))
    return false;
  int64_t expected = 1;
  for (int i = dims() - 1; i >= 0; --i) {
    if (size(i) != 1 && stride(i) != expected)
      return false;
    expected *= size(i);
  }
  return true;
}

bool TorchTensor::overlaps(const TorchTensor &other) const {
  const auto end = [](const TorchTensor &view) {
    int64_t last = 0;
    for (int i = 0; i < view.dims(); ++i)
      last += (view.size(i) - 1) * view.stride(i);
    return static_cast<char *>(view.data()) + (last + 1) * (view.seen.dtype.bits / 8);
  };
  const std::less<const void *> before;
  return before(data(), end(other)) && before(other.data(), end(*this));
}

// In one piece, data behind the rest.
struct alignas(64) NewTensor::Block {
  DLManagedTensorVersioned managed; // the first: its address is the block's
  std::array<int64_t, kMostDims> sizes, strides;
  void *memory; // that the block lies in: malloc's, which is quicker than an aligned allocation

  static void free(DLManagedTensorVersioned *self) {
    std::free(reinterpret_cast<Block *>(self)->memory);
  }
};

NewTensor::~NewTensor() {
  if (block_)
    Block::free(&block_->managed);
}

bool NewTensor::allocate(DLDataType type, int dims, const int64_t *sizes) {
  std::array<int64_t, kMostDims> strides{};
  int64_t count = 1;
  for (int i = dims - 1; i >= 0; --i) {
    strides[static_cast<size_t>(i)] = count;
    if (__builtin_mul_overflow(count, sizes[i], &count))
      return false;
  }
  size_t bytes;
  if (__builtin_mul_overflow(static_cast<size_t>(count), type.bits / 8u, &bytes) ||
      __builtin_add_overflow(bytes, sizeof(Block), &bytes))
    return false;
  size_t space;
  if (__builtin_add_overflow(bytes, alignof(Block) - 1, &space))
    return false;
  void *const memory = std::malloc(space), *aligned = memory;
  if (!memory)
    return false;
  block_ = new (std::align(alignof(Block), bytes, aligned, space)) Block{};
  block_->memory = memory;
  std::copy(sizes, sizes + dims, block_->sizes.begin());
  block_->strides = strides;
  DLManagedTensorVersioned &managed = block_->managed;
  managed.version = {DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION};
  managed.deleter = &Block::free;
  managed.dl_tensor = {
      block_ + 1, {kDLCPU, 0}, dims, type, block_->sizes.data(), block_->strides.data(), 0};
  return true;
}

void *NewTensor::data() const { return block_ + 1; }
int64_t NewTensor::stride(int i) const { return block_->strides[static_cast<size_t>(i)]; }

PyObject *NewTensor::release() {
  Block *const given = std::exchange(block_, nullptr);
  void *tensor = nullptr;
  return exchange->managed_tensor_to_py_object_no_sync(&given->managed, &tensor)
             ? nullptr
             : static_cast<PyObject *>(tensor);
}

} // namespace lstm_fastkernels
