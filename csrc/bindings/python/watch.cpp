// The packed weights of a module, if the module's tensors are those that they were made from, and
// as they were: the question that every eager call asks, in a fifth of a microsecond. On Python's
// limited API.
#include <Python.h>

namespace {

// Names in a module's __dict__, and of a tensor's version.
struct Names {
  PyObject *parameters, *buffers, *made_from, *made_at, *packed, *version;
} names;

// The versions of a dict's values, which are the tuple's from the i-th on. -1 where one is another
// object, or with an exception set.
long long versions_of(PyObject *held, PyObject *known, Py_ssize_t *i) {
  const Py_ssize_t count = PyTuple_Size(known);
  Py_ssize_t position = 0;
  PyObject *key, *value;
  long long sum = 0;
  while (*i < count && PyDict_Next(held, &position, &key, &value)) {
    if (value != PyTuple_GetItem(known, (*i)++))
      return -1;
    if (value == Py_None)
      continue;
    PyObject *const version = PyObject_GetAttr(value, names.version);
    if (!version)
      return -1;
    sum += PyLong_AsLongLong(version);
    Py_DECREF(version);
  }
  return PyErr_Occurred() ? -1 : sum;
}

PyObject *current(PyObject *, PyObject *module) {
  PyObject *const parameters =
      PyDict_Check(module) ? PyDict_GetItem(module, names.parameters) : nullptr;
  PyObject *const buffers = parameters ? PyDict_GetItem(module, names.buffers) : nullptr;
  PyObject *const made_from = buffers ? PyDict_GetItem(module, names.made_from) : nullptr;
  PyObject *const made_at = made_from ? PyDict_GetItem(module, names.made_at) : nullptr;
  if (!made_at || !PyDict_Check(parameters) || !PyDict_Check(buffers) ||
      !PyTuple_Check(made_from)) {
    PyErr_SetString(PyExc_TypeError, "expected the __dict__ of a PackedLSTM");
    return nullptr;
  }
  Py_ssize_t i = 0;
  const long long of_parameters = versions_of(parameters, made_from, &i);
  const long long of_buffers = of_parameters < 0 ? -1 : versions_of(buffers, made_from, &i);
  const long long expected = PyErr_Occurred() ? -1 : PyLong_AsLongLong(made_at);
  if (PyErr_Occurred())
    return nullptr;
  const bool same =
      of_buffers >= 0 && i == PyTuple_Size(made_from) && of_parameters + of_buffers == expected;
  PyObject *const packed = same ? PyDict_GetItem(buffers, names.packed) : nullptr;
  return Py_NewRef(packed ? packed : Py_None);
}

PyMethodDef methods[] = {{"current", current, METH_O,
                          "current(module_dict)\n--\n\n"
                          "The packed weights of the module with that __dict__; None if its "
                          "tensors have changed since."},
                         {nullptr, nullptr, 0, nullptr}};

PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_watch", nullptr, 0, methods, nullptr, nullptr, nullptr, nullptr};

} // namespace

PyMODINIT_FUNC PyInit__watch() {
  names = {PyUnicode_InternFromString("_parameters"), PyUnicode_InternFromString("_buffers"),
           PyUnicode_InternFromString("_made_from"),  PyUnicode_InternFromString("_made_at"),
           PyUnicode_InternFromString("packed"),      PyUnicode_InternFromString("_version")};
  return PyErr_Occurred() ? nullptr : PyModule_Create(&definition);
}
