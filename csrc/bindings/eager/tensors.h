// torch's tensors as torch's own C++ has them: no dispatcher, and no question to Python.
#pragma once

#include <Python.h>

#include <cstdint>
#include <initializer_list>
#include <optional>

#include "lstm_fastkernels/data_type.h"

namespace c10 {
struct TensorImpl;
}

namespace lstm_fastkernels {

using Tensors = std::initializer_list<PyObject *>;

// Whether it is of the class torch.Tensor, not of one derived from it.
bool is_plain_class(PyObject *object);

// Of a tensor of any class: how often it was changed; -1 where that is not counted.
int64_t version_of(PyObject *tensor);
bool requires_grad(PyObject *tensor);
bool grad_enabled();

// Counts a change of tensors of any class, which are then written; false where torch lets nobody
// write one of them here: those made in inference mode belong to that alone.
bool note_writes(Tensors tensors);

// A tensor that is what it looks like: of the class torch.Tensor itself, on the CPU, of a plain
// layout, with no lazy bit, and nobody's wrapper. Its memory is the tensor's.
class TorchTensor {
public:
  // False for others, without an exception.
  bool take(PyObject *object);

  int dims() const { return dims_; }
  const int64_t *sizes() const { return sizes_; }
  int64_t size(int i) const { return sizes_[i]; }
  // -1 for the last dimension, and so on.
  int64_t size_from_end(int i) const { return sizes_[dims_ + i]; }
  int64_t stride(int i) const { return strides_[i]; }
  void *data() const { return data_; }
  std::optional<DataType> type() const { return type_; } // none for other types
  IdType id_type() const { return id_type_; }
  bool rows_are_contiguous() const;                    // the last dimension has no gaps
  bool is(std::initializer_list<int64_t> sizes) const; // and contiguous
  bool overlaps(const TorchTensor &other) const;

private:
  char *end() const;

  const int64_t *sizes_, *strides_;
  int dims_;
  char *data_;
  int64_t item_bytes_;
  std::optional<DataType> type_;
  IdType id_type_;
};

// A new tensor on the CPU, contiguous and not initialized, aligned as torch's are.
class NewTensor {
public:
  static constexpr int kMostDims = 3;

  NewTensor() = default;
  NewTensor(const NewTensor &) = delete;
  ~NewTensor();

  // False for want of memory.
  bool allocate(DataType type, int dims, const int64_t *sizes);
  void *data() const { return data_; }
  int64_t stride(int i) const;
  // The tensor as Python has it, once; null with an exception set.
  PyObject *release();

private:
  c10::TensorImpl *tensor_ = nullptr;
  void *data_ = nullptr;
};

} // namespace lstm_fastkernels
