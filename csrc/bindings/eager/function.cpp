#include "bindings/eager/function.h"

namespace lstm_fastkernels {
namespace {

constexpr int kFast = METH_FASTCALL | METH_KEYWORDS; // pybind11's

using WithKeywords = PyObject *(*)(PyObject *self, PyObject *const *arguments, Py_ssize_t count,
                                   PyObject *keywords);

} // namespace

int is_true(PyObject *answer) {
  const int yes = answer ? PyObject_IsTrue(answer) : -1;
  Py_XDECREF(answer);
  return yes;
}

Function::Function(PyObject *function) : function_(Py_NewRef(function)) {
  if (!PyCFunction_CheckExact(function))
    return;
  flags_ = PyCFunction_GetFlags(function);
  direct_ = PyCFunction_GetFunction(function);
  self_ = PyCFunction_GetSelf(function);
}

PyObject *Function::operator()() const {
  if (flags_ == METH_NOARGS)
    return direct_(self_, nullptr);
  if (flags_ == kFast)
    return reinterpret_cast<WithKeywords>(reinterpret_cast<void (*)()>(direct_))(self_, nullptr, 0,
                                                                                 nullptr);
  return PyObject_CallNoArgs(function_);
}

} // namespace lstm_fastkernels
