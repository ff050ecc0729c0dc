// Whether a module's tensors are those that its packed weights were made from, and as they were.
#pragma once

#include <Python.h>

namespace lstm_fastkernels {

void prepare_watch();

// `packed` of the module with that __dict__, borrowed; null where its tensors have changed since it
// was made, or with an exception set.
PyObject *current_packed(PyObject *module_dict);

} // namespace lstm_fastkernels
