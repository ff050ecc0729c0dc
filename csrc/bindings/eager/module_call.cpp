#include "bindings/eager/module_call.h"

#include <vector>

#include "bindings/eager/function.h"

namespace lstm_fastkernels {
namespace {

// Of a class, as it was.
struct Attribute {
  PyObject *holder, *name, *value;

  bool is_the_same() const {
    PyObject *const now = PyObject_GetAttr(holder, name);
    Py_XDECREF(now);
    return now == value;
  }
};

struct Known {
  PyObject *module_class;
  FastFunction function;
  ModuleCall call;
  Function compiler;
  std::vector<Attribute> attributes;

  bool keep(PyObject *holder, PyObject *name) {
    attributes.push_back({holder, name, PyObject_GetAttr(holder, name)});
    return attributes.back().value;
  }
};

std::vector<Known> all;
PyObject *call_name, *call_impl_name, *compiled_name, *forward_name;

// Whether all of these dicts of hooks are there, with nothing in them.
bool are_empty(PyObject *names, PyObject *dict) {
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); ++i) {
    PyObject *const hooks = PyDict_GetItemWithError(dict, PyTuple_GET_ITEM(names, i));
    if (!hooks || PyDict_Size(hooks) != 0)
      return false;
  }
  return true;
}

// Whether a module calls what its class has.
bool has_no_call_of_its_own(PyObject *dict) {
  PyObject *const compiled = PyDict_GetItemWithError(dict, compiled_name);
  return (!compiled || compiled == Py_None) && !PyDict_GetItemWithError(dict, forward_name) &&
         !PyDict_GetItemWithError(dict, call_impl_name);
}

bool calls_forward_alone(const Known &known, PyObject *dict) {
  for (const Attribute &attribute : known.attributes)
    if (!attribute.is_the_same())
      return false;
  const ModuleCall &call = known.call;
  return has_no_call_of_its_own(dict) && are_empty(call.hooks, dict) &&
         are_empty(call.global_hooks, call.globals) && is_true(known.compiler()) == 0;
}

} // namespace

bool connect_module_call(PyObject *module_class, FastFunction function, const ModuleCall &call) {
  call_name = PyUnicode_InternFromString("__call__");
  call_impl_name = PyUnicode_InternFromString("_call_impl");
  compiled_name = PyUnicode_InternFromString("_compiled_call_impl");
  forward_name = PyUnicode_InternFromString("forward");
  if (!call_name || !call_impl_name || !compiled_name || !forward_name)
    return false;
  for (PyObject *const kept :
       {module_class, call.base, call.hooks, call.global_hooks, call.globals})
    Py_INCREF(kept);
  Known known{module_class, function, call, Function(call.compiler), {}};
  const bool kept = known.keep(module_class, forward_name) &&
                    known.keep(module_class, call_impl_name) && known.keep(call.base, call_name);
  if (kept)
    all.push_back(known);
  return kept;
}

FastFunction forward_alone(PyObject *module) {
  for (const Known &known : all)
    if (Py_IS_TYPE(module, reinterpret_cast<PyTypeObject *>(known.module_class))) {
      PyObject *const dict = PyObject_GenericGetDict(module, nullptr);
      const bool alone = dict && calls_forward_alone(known, dict);
      Py_XDECREF(dict);
      PyErr_Clear();
      return alone ? known.function : nullptr;
    }
  return nullptr;
}

} // namespace lstm_fastkernels
