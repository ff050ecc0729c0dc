#include "bindings/eager/watch.h"

#include "bindings/eager/tensors.h"

namespace lstm_fastkernels {
namespace {

PyObject *parameters_name, *buffers_name, *made_name, *packed_name;

// What was known of a module's tensors, compared with what its dicts hold, one dict after another.
struct Comparison {
  PyObject *known; // a tuple
  Py_ssize_t count = PyTuple_GET_SIZE(known), i = 0;
  int64_t versions = 0; // the sum
  PyObject *packed = nullptr;

  // False where one is another object or counts no changes.
  bool goes_on(PyObject *dict) {
    Py_ssize_t position = 0;
    PyObject *key, *value;
    while (i < count && PyDict_Next(dict, &position, &key, &value)) {
      if (value != PyTuple_GET_ITEM(known, i++))
        return false;
      if (key == packed_name)
        packed = value;
      if (value == Py_None)
        continue;
      const int64_t version = version_of(value);
      if (version < 0)
        return false;
      versions += version;
    }
    return true;
  }
};

} // namespace

void prepare_watch() {
  parameters_name = PyUnicode_InternFromString("_parameters");
  buffers_name = PyUnicode_InternFromString("_buffers");
  made_name = PyUnicode_InternFromString("_made");
  packed_name = PyUnicode_InternFromString("packed");
}

PyObject *current_packed(PyObject *module) {
  PyObject *const parameters = PyDict_GetItemWithError(module, parameters_name);
  PyObject *const buffers = PyDict_GetItemWithError(module, buffers_name);
  PyObject *const made = PyDict_GetItemWithError(module, made_name);
  PyObject *const known = made && PyTuple_Check(made) && PyTuple_GET_SIZE(made) == 2
                              ? PyTuple_GET_ITEM(made, 0)
                              : nullptr;
  if (!parameters || !buffers || !known || !PyTuple_Check(known)) {
    PyErr_SetString(PyExc_TypeError, "expected the __dict__ of a PackedLSTM");
    return nullptr;
  }
  Comparison tensors{known};
  if (PyDict_Size(parameters) + PyDict_Size(buffers) != tensors.count ||
      !tensors.goes_on(parameters) || !tensors.goes_on(buffers))
    return nullptr;
  const long long versions = PyLong_AsLongLong(PyTuple_GET_ITEM(made, 1));
  return versions == tensors.versions && !PyErr_Occurred() ? tensors.packed : nullptr;
}

} // namespace lstm_fastkernels
