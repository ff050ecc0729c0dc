#include "bindings/eager/listeners.h"

#include <vector>

#include "bindings/eager/function.h"

namespace lstm_fastkernels {
namespace {

using Functions = std::vector<Function>;
Functions of_dispatcher, of_others;
PyObject *forward_ad_dict, *level_name;

bool read(PyObject *tuple, Functions *functions) {
  const Py_ssize_t count = PyTuple_Size(tuple);
  functions->clear();
  for (Py_ssize_t i = 0; i < count; ++i)
    functions->emplace_back(PyTuple_GetItem(tuple, i));
  return count >= 0;
}

int any(const Functions &functions) {
  for (const Function &asked : functions)
    if (const int heard = is_true(asked()))
      return heard;
  return 0;
}

// Forward-mode differentiation has its level in a variable of Python's; none is below 0.
int differentiates_forward() {
  PyObject *const level = PyDict_GetItemWithError(forward_ad_dict, level_name);
  const long value = level ? PyLong_AsLong(level) : 0;
  return PyErr_Occurred() ? -1 : value >= 0;
}

} // namespace

bool connect_listeners(PyObject *dispatcher, PyObject *others, PyObject *forward_ad) {
  forward_ad_dict = Py_NewRef(forward_ad);
  level_name = PyUnicode_InternFromString("_current_level");
  return level_name && read(dispatcher, &of_dispatcher) && read(others, &of_others);
}

int dispatcher_is_heard() {
  const int heard = differentiates_forward();
  return heard ? heard : any(of_dispatcher);
}

int anyone_hears() {
  const int heard = dispatcher_is_heard();
  return heard ? heard : any(of_others);
}

} // namespace lstm_fastkernels
