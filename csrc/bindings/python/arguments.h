// Arguments as Python gives them, checked here and not by pybind11: its errors list signatures,
// ours say what to do.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "lstm_fastkernels/error.h"

namespace lstm_fastkernels {

namespace py = pybind11;

// A ValueError.
[[noreturn]] inline void fail(const std::string &message) {
  throw Error(ErrorCode::invalid_argument, message);
}

[[noreturn]] inline void fail_type(const char *name, const std::string &expected,
                                   const py::handle &given, const std::string &hint = "") {
  throw py::type_error(std::string(name) + " must be " + expected + ", got " +
                       py::str(py::type::handle_of(given).attr("__name__")).cast<std::string>() +
                       (hint.empty() ? "" : ": " + hint));
}

// A mask would be ignored in silence. Arrays of NumPy's own class have none; to ask them for it
// would take as long as some checks of a streaming step.
inline void check_unmasked(const char *name, const py::handle &given) {
  const bool plain = Py_IS_TYPE(given.ptr(), py::detail::npy_api::get().PyArray_Type_);
  if (!plain && py::isinstance<py::array>(given) && py::hasattr(given, "mask"))
    fail_type(name, "a plain NumPy array", given, "use .filled(value)");
}

inline py::array array_argument(const char *name, const py::object &given) {
  if (py::isinstance<py::array>(given)) {
    check_unmasked(name, given);
    return py::reinterpret_borrow<py::array>(given);
  }
  const bool has_numpy = py::hasattr(given, "numpy"); // torch and others have it
  fail_type(name, "a NumPy array", given,
            has_numpy ? "use .numpy()"
                      : "use numpy.asarray(" + std::string(name) + ", \"float32\")");
}

inline bool flag_argument(const char *name, const py::object &given) {
  if (!py::isinstance<py::bool_>(given))
    fail_type(name, "True or False", given);
  return given.is(py::bool_(true));
}

inline int64_t integer_argument(const char *name, const py::object &given) {
  const auto index = py::reinterpret_steal<py::object>(PyNumber_Index(given.ptr()));
  if (!index) {
    PyErr_Clear();
    fail_type(name, "an integer", given);
  }
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
  if (overflow)
    fail(std::string(name) + " is out of range, got " + py::str(index).cast<std::string>());
  return value;
}

// At least 1.
inline int threads_argument(const py::object &given) {
  const int64_t threads = integer_argument("threads", given);
  if (threads < 1)
    fail("threads must be at least 1, got " + std::to_string(threads));
  return static_cast<int>(std::min<int64_t>(threads, std::numeric_limits<int>::max()));
}

using Integers = py::array_t<int64_t, py::array::c_style | py::array::forcecast |
                                          py::detail::npy_api::NPY_ARRAY_ALIGNED_>;

// Runs code of the caller's, where the object has some that makes an array of it.
inline std::optional<Integers> integers_argument(const char *name, const py::object &given) {
  if (given.is_none())
    return std::nullopt;
  check_unmasked(name, given);
  const py::array any = py::array::ensure(given);
  // An empty list is one of floats to NumPy.
  if (!any || (any.size() && any.dtype().kind() != 'i' && any.dtype().kind() != 'u'))
    throw py::type_error(std::string(name) + " must be integers");
  return Integers(any);
}

inline std::string text_argument(const char *name, const py::object &given) {
  if (!py::isinstance<py::str>(given))
    fail_type(name, "a str", given);
  return given.cast<std::string>();
}

inline std::string_view bytes_argument(const char *name, const py::object &given) {
  if (!py::isinstance<py::bytes>(given))
    fail_type(name, "bytes", given, "use bytes(" + std::string(name) + ")");
  return given.cast<std::string_view>();
}

template <class T>
T &instance_argument(const char *name, const py::object &given, const std::string &hint) {
  if (!py::isinstance<T>(given))
    fail_type(name, "a " + py::str(py::type::of<T>().attr("__name__")).template cast<std::string>(),
              given, hint);
  return given.cast<T &>();
}

} // namespace lstm_fastkernels
