// nn.Module's __call__, left out where it would call forward and do nothing else.
#pragma once

#include <Python.h>

namespace lstm_fastkernels {

// METH_FASTCALL.
using FastFunction = PyObject *(*)(PyObject *self, PyObject *const *arguments, Py_ssize_t count);

// What nn.Module's __call__ asks for.
struct ModuleCall {
  PyObject *base;                 // a class that has inherited it
  PyObject *hooks, *global_hooks; // names of dicts: a module's, and those in `globals`
  PyObject *globals;
  PyObject *compiler; // a function: something true where torch.compile is at work on frames
};

// Calls of modules of this class, and of none derived from it, may go to `function` at once, while
// the class and its base have the forward and the __call__ that they have now. Keeps all of it.
bool connect_module_call(PyObject *module_class, FastFunction function, const ModuleCall &call);

// The function for a module whose __call__ would call forward and do nothing else; else null, or
// where it is not known.
FastFunction forward_alone(PyObject *module);

} // namespace lstm_fastkernels
