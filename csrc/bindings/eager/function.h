// A function of Python's without arguments, called past the interpreter's checks where it is one of
// C's.
#pragma once

#include <Python.h>

namespace lstm_fastkernels {

// Of an answer that is given away: 1, 0; -1 with an exception set.
int is_true(PyObject *answer);

class Function {
public:
  Function() = default;
  // Keeps it for good.
  explicit Function(PyObject *function);

  // A new reference; null with an exception set.
  PyObject *operator()() const;

private:
  PyObject *function_ = nullptr;
  PyCFunction direct_ = nullptr; // null for those that are called as any is
  PyObject *self_ = nullptr;
  int flags_ = 0;
};

} // namespace lstm_fastkernels
