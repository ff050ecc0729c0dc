#include "bindings/eager/listeners.h"

#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/record_function.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

namespace lstm_fastkernels {
namespace {

PyObject *forward_ad_dict, *level_name;

// Forward-mode differentiation has its level in a variable of Python's; none is below 0. Where it
// cannot be read there may be one.
bool differentiates_forward() {
  PyObject *const level = PyDict_GetItemWithError(forward_ad_dict, level_name);
  const long value = level ? PyLong_AsLong(level) : 0;
  PyErr_Clear();
  return value >= 0;
}

} // namespace

bool connect_listeners(PyObject *forward_ad) {
  forward_ad_dict = Py_NewRef(forward_ad);
  level_name = PyUnicode_InternFromString("_current_level");
  return level_name;
}

// Whoever wants to see ops in this thread includes a key of its own, or, as autocast, takes one
// from those that are left out.
bool dispatcher_is_heard() {
  const c10::impl::LocalDispatchKeySet keys = c10::impl::tls_local_dispatch_key_set();
  return (keys.included_ | c10::default_included_set) != c10::default_included_set ||
         (keys.excluded_ & c10::default_excluded_set) != c10::default_excluded_set ||
         differentiates_forward();
}

bool anyone_hears() {
  return dispatcher_is_heard() || at::impl::PythonTorchFunctionTLS::stack_len() > 0 ||
         at::getStepCallbacksUnlessEmpty(at::RecordScope::FUNCTION).has_value();
}

} // namespace lstm_fastkernels
