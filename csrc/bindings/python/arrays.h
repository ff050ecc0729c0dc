// x and y as NumPy arrays.
#pragma once

#include <pybind11/numpy.h>

#include <new>
#include <string>
#include <vector>

#include "bindings/python/arguments.h"
#include "lstm_fastkernels/data_type.h"
#include "lstm_fastkernels/lstm.h"

namespace lstm_fastkernels {

// What pybind11 does not name of NumPy's C interface.
constexpr int kNumpyHalf = 23;           // NPY_HALF
constexpr int kNumpyEnsureCopy = 0x0020; // NPY_ARRAY_ENSURECOPY

inline std::string sizes_of(const py::array &array) {
  return py::str(array.attr("shape")).cast<std::string>();
}

// Of that type and in this machine's byte order.
inline bool holds(const py::array &array, int type_number) {
  const auto &numpy = py::detail::npy_api::get();
  return numpy.PyArray_EquivTypes_(array.dtype().ptr(), py::dtype(type_number).ptr());
}

// That of x, whose last dimension has these columns.
inline DataType data_type_of(const py::array &x, int64_t columns) {
  const bool single = holds(x, py::detail::npy_api::NPY_FLOAT_);
  if (!single && !holds(x, kNumpyHalf))
    throw py::type_error("x must be float32 or float16, got " +
                         py::str(x.dtype()).cast<std::string>() + ": use .astype(numpy.float32)");
  if (x.shape(x.ndim() - 1) != columns)
    fail("x must have " + std::to_string(columns) + " columns, got " + sizes_of(x));
  return single ? DataType::float32 : DataType::float16;
}

inline IdType id_type_of(const py::array &x) {
  if (holds(x, py::detail::npy_api::NPY_INT64_))
    return IdType::int64;
  if (holds(x, py::detail::npy_api::NPY_INT32_))
    return IdType::int32;
  throw py::type_error("x must be token ids, int64 or int32, got " +
                       py::str(x.dtype()).cast<std::string>());
}

// x as the kernels take it: aligned, rows without gaps. Otherwise, or if asked to, a copy. `outer`:
// of its dimensions, those that are not columns, which ids do not have.
inline py::array readable(const py::array &x, py::ssize_t outer, bool copy) {
  const py::ssize_t size = x.itemsize();
  bool fits = !copy && (x.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) &&
              (outer == x.ndim() || x.shape(outer) == 1 || x.strides(outer) == size);
  for (py::ssize_t i = 0; i < outer; ++i)
    fits = fits && x.strides(i) % size == 0;
  if (fits)
    return x;
  py::array copied = py::array::ensure(x, py::array::c_style | kNumpyEnsureCopy);
  if (!copied)
    throw std::bad_alloc();
  return copied;
}

// An array for y: columns for each of x's rows, of x's dtype; float32 for ids.
inline py::array output_for(const py::array &x, py::ssize_t outer, int64_t columns) {
  std::vector<py::ssize_t> sizes(x.shape(), x.shape() + outer);
  sizes.push_back(columns);
  return py::array(outer == x.ndim() ? py::dtype::of<float>() : x.dtype(), sizes);
}

// In elements; 0 of no dimension, -1.
inline int64_t stride_of(const py::array &array, int dimension) {
  return dimension < 0 ? 0 : array.strides(dimension) / array.itemsize();
}

} // namespace lstm_fastkernels
