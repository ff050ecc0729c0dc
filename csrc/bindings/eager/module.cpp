// The short way of eager calls: forward of the module and of its cell, and step. `lstm`, `cell`,
// `call` and `step` give None where a call is not for it, and have then changed nothing: the op
// takes it, with its checks and messages. All is done under the GIL but kernels that take long.
#include <Python.h>

#include "bindings/eager/call.h"
#include "bindings/eager/listeners.h"
#include "bindings/eager/module_call.h"
#include "bindings/eager/watch.h"

namespace lstm_fastkernels {
namespace {

// Not the short way.
PyObject *none() {
  PyErr_Clear();
  Py_RETURN_NONE;
}

// The pair of them, if there are any.
PyObject *pair(PyObject *first, PyObject *second) {
  PyObject *const both = first && second ? PyTuple_Pack(2, first, second) : nullptr;
  Py_XDECREF(first);
  Py_XDECREF(second);
  return both;
}

PyObject *release(NewTensor &first, NewTensor &second) {
  PyObject *const one = first.release();
  return pair(one, one ? second.release() : nullptr);
}

bool has(Py_ssize_t count, Py_ssize_t expected) {
  if (count != expected)
    PyErr_Format(PyExc_TypeError, "expected %zd arguments, got %zd", expected, count);
  return count == expected;
}

PyObject *lstm(PyObject *, PyObject *const *args, Py_ssize_t count) {
  if (!has(count, 3))
    return nullptr;
  Arguments given{args[0], args[1]};
  Call call;
  NewTensor y, h, c;
  if (!given.take_states(args[2]) || !call.take(given, Form::sequence) || !call.put(y) ||
      !call.put(h, c) || !call.run())
    return none();
  PyObject *const output = y.release();
  return pair(output, output ? release(h, c) : nullptr);
}

PyObject *cell(PyObject *, PyObject *const *args, Py_ssize_t count) {
  if (!has(count, 3))
    return nullptr;
  Arguments given{args[0], args[1]};
  Call call;
  NewTensor h, c;
  if (!given.take_states(args[2]) || !call.take(given, Form::cell) || !call.put(h, c) ||
      !call.put_h_for_y(h) || !call.run())
    return none();
  return release(h, c);
}

PyObject *call(PyObject *, PyObject *const *args, Py_ssize_t count) {
  if (!has(count, 2))
    return nullptr;
  PyObject *const module = args[0], *const given = args[1];
  const Py_ssize_t inputs = PyTuple_Check(given) ? PyTuple_GET_SIZE(given) : 0;
  const FastFunction forward = inputs == 1 || inputs == 2 ? forward_alone(module) : nullptr;
  if (!forward)
    return none();
  PyObject *const arguments[] = {module, PyTuple_GET_ITEM(given, 0),
                                 inputs == 2 ? PyTuple_GET_ITEM(given, 1) : Py_None};
  return forward(nullptr, arguments, 3);
}

PyObject *step(PyObject *, PyObject *const *args, Py_ssize_t count) {
  if (!has(count, 5))
    return nullptr;
  Arguments given{args[0], args[1]};
  if (args[3] != Py_None)
    given.out = args[3];
  if (args[4] != Py_None)
    given.state_rows = args[4];
  Call call;
  NewTensor y;
  TorchTensor out;
  if (!given.take_states(args[2]) || !given.h || !call.take(given, Form::step) ||
      !call.put_in_place())
    return none();
  if (given.out ? !out.take(given.out) || !call.put(out) : !call.put(y))
    return none();
  const bool noted =
      given.out ? note_writes({given.h, given.c, given.out}) : note_writes({given.h, given.c});
  if (!noted || !call.run())
    return none();
  return given.out ? Py_NewRef(given.out) : y.release();
}

PyObject *current(PyObject *, PyObject *module_dict) {
  PyObject *const packed = current_packed(module_dict);
  return packed || !PyErr_Occurred() ? Py_NewRef(packed ? packed : Py_None) : nullptr;
}

PyObject *quiet(PyObject *, PyObject *) { return PyBool_FromLong(!dispatcher_is_heard()); }

PyObject *connect(PyObject *, PyObject *const *args, Py_ssize_t count) {
  if (!has(count, 2))
    return nullptr;
  const auto *const functions = static_cast<const EagerFunctions *>(PyLong_AsVoidPtr(args[0]));
  return functions && connect_listeners(args[1]) && connect_calls(functions) ? Py_NewRef(Py_None)
                                                                             : nullptr;
}

PyObject *shorten(PyObject *, PyObject *const *args, Py_ssize_t count) {
  if (!has(count, 7))
    return nullptr;
  const FastFunction function = args[1] == Py_True ? &cell : &lstm;
  return connect_module_call(args[0], function, {args[2], args[3], args[4], args[5], args[6]})
             ? Py_NewRef(Py_None)
             : nullptr;
}

template <class Called> PyCFunction as_method(Called *function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyMethodDef methods[] = {
    {"connect", as_method(connect), METH_FASTCALL,
     "connect(functions, forward_ad)\n--\n\nWhat calls need of the ops and of torch."},
    {"shorten", as_method(shorten), METH_FASTCALL,
     "shorten(module_class, is_cell, base, hooks, global_hooks, globals, compiler)\n--\n\n"
     "`call` knows this class from now on; see module_call.h."},
    {"lstm", as_method(lstm), METH_FASTCALL, "lstm(module, x, hx)\n--\n\ny, (h, c)."},
    {"cell", as_method(cell), METH_FASTCALL, "cell(module, x, hx)\n--\n\n(h, c)."},
    {"call", as_method(call), METH_FASTCALL,
     "call(module, inputs)\n--\n\n"
     "What the module's __call__ gives for this tuple, where that is forward and nothing else."},
    {"step", as_method(step), METH_FASTCALL,
     "step(module, x, state, out, state_rows)\n--\n\n"
     "y, or out, of one step; the state is changed, in these rows or in all."},
    {"current", current, METH_O,
     "current(module_dict)\n--\n\n"
     "The packed weights of the module with that __dict__, whose _made is a tuple: what its dicts\n"
     "of parameters and buffers held when it was packed, and the sum of the versions then. None "
     "if\n"
     "they hold something else now."},
    {"quiet", quiet, METH_NOARGS, "quiet()\n--\n\nWhether nobody listens to torch's dispatcher."},
    {nullptr, nullptr, 0, nullptr}};

PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_eager", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

} // namespace
} // namespace lstm_fastkernels

PyMODINIT_FUNC PyInit__eager() {
  lstm_fastkernels::prepare_watch();
  return PyErr_Occurred() ? nullptr : PyModule_Create(&lstm_fastkernels::definition);
}
