// A call of a packed LSTM on torch's tensors, past torch's dispatcher.
#pragma once

#include <Python.h>

#include <initializer_list>
#include <memory>

#include "bindings/eager/tensors.h"
#include "bindings/torch/eager.h"

namespace lstm_fastkernels {

bool connect_calls(const EagerFunctions *functions);

// A call's arguments, borrowed; those that are null were not given.
struct Arguments {
  PyObject *module, *x, *h = nullptr, *c = nullptr, *out = nullptr;
  PyObject *state_rows = nullptr; // a list

  // From a pair, or None.
  bool take_states(PyObject *hx);
};

enum class Form { sequence, cell, step };

// Whatever gives false is not for the short way, and has left no trace but perhaps an exception.
class Call {
public:
  Call() = default;
  Call(const Call &) = delete;
  ~Call();

  bool take(const Arguments &given, Form form);

  // Outputs of the call: `y`, or for y what was given as one; h_n and c_n.
  bool put(NewTensor &y);
  bool put(const TorchTensor &y);
  bool put(NewTensor &h, NewTensor &c);
  // h_n for y, too.
  bool put_h_for_y(const NewTensor &h);
  // The states that were given, for those to come.
  bool put_in_place();

  bool run() const;

  TorchTensor x, h, c;

private:
  using Sizes = std::initializer_list<int64_t>;

  bool take_module(PyObject *dict, const Arguments &given);
  bool lay_out(Form form); // what x means to the module
  bool take_states(const Arguments &given);
  // For x of as many rows, and states of all; the kernels check them.
  bool take_state_rows(PyObject *list);
  // use(sizes of an h or c of so many columns)
  template <class Use> bool with_state_sizes(int64_t columns, const Use &use) const;
  template <class Output> void put_strides(const Output &y);
  int64_t output_columns() const { return shape_.num_directions * shape_.output_size(); }

  int64_t state_batch() const { return a_.state_rows ? a_.state_batch : a_.batch_size; }

  bool is_short() const;

  TorchTensor packed_;
  HeldLstm lstm_;
  bool held_ = false;
  LstmShape shape_;
  LstmArguments a_;
  std::unique_ptr<int64_t[]> state_rows_;
  bool takes_ids_ = false, of_cell_ = false, batch_first_ = false;
  int time_ = -1, row_ = -1; // dimensions of x and y; -1: there is none, and so one step or row
};

} // namespace lstm_fastkernels
