// torch's tensors through DLPack's C exchange table (DLPack 1.3): no dispatcher, no ABI of torch.
#pragma once

#include <ATen/dlpack.h>
#include <Python.h>

#include <cstdint>
#include <initializer_list>
#include <optional>

#include "lstm_fastkernels/data_type.h"

namespace lstm_fastkernels {

// Whether torch has the table, and what is asked below. `tensor_class` is torch.Tensor.
bool connect_tensors(PyObject *tensor_class);

// Whether it is of the class torch.Tensor, not of one derived from it.
bool is_plain_class(PyObject *tensor);

// What a tensor, of any class, says of itself, by the C functions behind its attributes; -1 with an
// exception set.
long long version_of(PyObject *tensor);
int requires_grad(PyObject *tensor);

// A tensor that is what it looks like: of the class torch.Tensor itself, on the CPU, of a plain
// layout, with no lazy bit. Its memory is the tensor's.
struct TorchTensor {
  DLTensor seen;

  // False for others, without an exception.
  bool take(PyObject *tensor) { return take_own(tensor) && !is_negated(tensor); }
  // The same of a tensor that cannot have the lazy bit.
  bool take_own(PyObject *tensor);

  int dims() const { return seen.ndim; }
  int64_t size(int i) const { return seen.shape[i]; }
  // -1 for the last dimension, and so on.
  int64_t size_from_end(int i) const { return seen.shape[seen.ndim + i]; }
  int64_t stride(int i) const { return seen.strides[i]; }
  void *data() const { return static_cast<char *>(seen.data) + seen.byte_offset; }
  std::optional<DataType> type() const;                // float32, float16, bfloat16
  IdType id_type() const;                              // none for other types
  bool rows_are_contiguous() const;                    // the last dimension has no gaps
  bool is(std::initializer_list<int64_t> sizes) const; // and contiguous
  bool overlaps(const TorchTensor &other) const;

private:
  static bool is_negated(PyObject *tensor);
};

// A new tensor on the CPU, contiguous and not initialized, whose memory, aligned as torch's is,
// torch gets with it: half of the time that torch's own allocation takes.
class NewTensor {
public:
  static constexpr int kMostDims = 3;

  NewTensor() = default;
  NewTensor(const NewTensor &) = delete;
  ~NewTensor();

  // False for want of memory.
  bool allocate(DLDataType type, int dims, const int64_t *sizes);
  void *data() const;
  int64_t stride(int i) const;
  // The tensor as Python has it, once; null with an exception set.
  PyObject *release();

private:
  struct Block;
  Block *block_ = nullptr;
};

} // namespace lstm_fastkernels
