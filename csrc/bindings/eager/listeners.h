// Who listens to torch, and so must see the op.
#pragma once

#include <Python.h>

namespace lstm_fastkernels {

// forward_ad: the dict of torch.autograd.forward_ad.
bool connect_listeners(PyObject *forward_ad);

// A mode, transform, autocast, tracer or forward-mode differentiation; gradients are no part of it.
bool dispatcher_is_heard();
// Those, and whoever else torch tells of what it does: function modes and profilers.
bool anyone_hears();

} // namespace lstm_fastkernels
