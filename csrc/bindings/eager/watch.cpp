#include "bindings/eager/watch.h"

#include "bindings/eager/tensors.h"

namespace lstm_fastkernels {
namespace {

PyObject *parameters_name, *buffers_name, *made_name, *packed_name;

// The versions of a dict's values, which are the tuple's from the i-th on; not that of `packed`,
// which was made from the others. -1 where one is another object, or with an exception set.
long long versions_of(PyObject *held, PyObject *known, Py_ssize_t *i) {
  const Py_ssize_t count = PyTuple_Size(known);
  Py_ssize_t position = 0;
  PyObject *key, *value;
  long long sum = 0;
  while (*i < count && PyDict_Next(held, &position, &key, &value)) {
    if (value != PyTuple_GetItem(known, (*i)++))
      return -1;
    if (value == Py_None || key == packed_name)
      continue;
    const long long version = version_of(value);
    if (version < 0)
      return -1;
    sum += version;
  }
  return sum;
}

} // namespace

void prepare_watch() {
  parameters_name = PyUnicode_InternFromString("_parameters");
  buffers_name = PyUnicode_InternFromString("_buffers");
  made_name = PyUnicode_InternFromString("_made");
  packed_name = PyUnicode_InternFromString("packed");
}

PyObject *current_packed(PyObject *module) {
  PyObject *const parameters = PyDict_GetItem(module, parameters_name);
  PyObject *const buffers = PyDict_GetItem(module, buffers_name);
  PyObject *const made = PyDict_GetItem(module, made_name);
  PyObject *const known =
      made && PyTuple_Check(made) && PyTuple_Size(made) == 2 ? PyTuple_GetItem(made, 0) : nullptr;
  if (!parameters || !buffers || !known || !PyTuple_Check(known)) {
    PyErr_SetString(PyExc_TypeError, "expected the __dict__ of a PackedLSTM");
    return nullptr;
  }
  Py_ssize_t i = 0;
  const long long of_parameters = versions_of(parameters, known, &i);
  const long long of_buffers = of_parameters < 0 ? -1 : versions_of(buffers, known, &i);
  const long long expected = PyErr_Occurred() ? -1 : PyLong_AsLongLong(PyTuple_GetItem(made, 1));
  if (PyErr_Occurred())
    return nullptr;
  const bool same =
      of_buffers >= 0 && i == PyTuple_Size(known) && of_parameters + of_buffers == expected;
  return same ? PyDict_GetItem(buffers, packed_name) : nullptr;
}

} // namespace lstm_fastkernels
