// Who listens to torch's dispatcher, and so must see the op.
#pragma once

#include <Python.h>

namespace lstm_fastkernels {

// dispatcher: a tuple of functions, each true where someone listens to torch's dispatcher; others:
// of those that torch tells of what it does in other ways; forward_ad: the dict of
// torch.autograd.forward_ad.
bool connect_listeners(PyObject *dispatcher, PyObject *others, PyObject *forward_ad);

// 1, 0; -1 with an exception set.
int dispatcher_is_heard();
int anyone_hears(); // the others, too

} // namespace lstm_fastkernels
