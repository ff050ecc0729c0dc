#include "bindings/eager/call.h"

#include <algorithm>
#include <array>
#include <new>

#include "bindings/eager/listeners.h"
#include "bindings/eager/watch.h"

namespace lstm_fastkernels {
namespace {

const EagerFunctions *functions;
PyObject *floats_name, *batch_first_name;

// A step of a row reads the weights, and takes as long as so many bytes more of them beside. Calls
// of so few bytes, some 2 us, keep the GIL: to give it away and to take it back costs more than
// others could do meanwhile.
constexpr int64_t kBytesOfStep = 1 << 14, kShortCall = 1 << 17;

// With tensors of the plain class.
bool derivative_is_asked(PyObject *module_dict, const Arguments &given) {
  if (!grad_enabled())
    return false;
  PyObject *const floats = PyDict_GetItemWithError(module_dict, floats_name);
  if (!floats || !PyList_Check(floats))
    return true;
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(floats); ++i)
    if (requires_grad(PyList_GET_ITEM(floats, i)))
      return true;
  for (PyObject *const tensor : {given.x, given.h, given.c, given.out})
    if (tensor && requires_grad(tensor))
      return true;
  return false;
}

} // namespace

bool connect_calls(const EagerFunctions *given) {
  functions = given;
  floats_name = PyUnicode_InternFromString("_floats");
  batch_first_name = PyUnicode_InternFromString("batch_first");
  return floats_name && batch_first_name;
}

bool Arguments::take_states(PyObject *hx) {
  if (hx == Py_None)
    return true;
  if (!PyTuple_Check(hx) || PyTuple_GET_SIZE(hx) != 2)
    return false;
  h = PyTuple_GET_ITEM(hx, 0);
  c = PyTuple_GET_ITEM(hx, 1);
  return true;
}

Call::~Call() {
  if (held_)
    functions->drop(&lstm_);
}

bool Call::take(const Arguments &given, Form form) {
  for (PyObject *const tensor : {given.x, given.h, given.c, given.out})
    if (tensor && !is_plain_class(tensor))
      return false;
  // x first: on another device the call ends here.
  if (!functions || !x.take(given.x) || anyone_hears())
    return false;
  PyObject *const dict = PyObject_GenericGetDict(given.module, nullptr);
  const bool taken = dict && take_module(dict, given);
  Py_XDECREF(dict);
  return taken && lay_out(form) && (!given.h || take_states(given));
}

bool Call::take_module(PyObject *dict, const Arguments &given) {
  PyObject *const packed = current_packed(dict);
  batch_first_ = PyDict_GetItemWithError(dict, batch_first_name) == Py_True;
  held_ = packed && !derivative_is_asked(dict, given) && packed_.take(packed) &&
          packed_.dims() == 1 &&
          functions->hold(packed_.data(), packed_.size(0), &lstm_, &shape_, &takes_ids_);
  return held_;
}

bool Call::lay_out(Form form) {
  const int dims = x.dims();
  const std::optional<DataType> type = takes_ids_ ? DataType::float32 : x.type();
  a_.id_type = takes_ids_ ? x.id_type() : IdType::none;
  if (takes_ids_ ? a_.id_type == IdType::none
                 : !type || dims < 1 || !x.rows_are_contiguous() ||
                       x.size_from_end(-1) != shape_.input_size)
    return false;
  of_cell_ = form == Form::cell;
  const int least = (form == Form::sequence ? 2 : 1) - (takes_ids_ ? 1 : 0);
  if (dims != least && dims != least + 1)
    return false;
  const bool batched = dims > least;
  if (form == Form::sequence)
    time_ = batched && batch_first_ ? 1 : 0;
  if (batched)
    row_ = time_ == 0 ? 1 : 0;
  a_.data_type = a_.state_type = *type;
  a_.time_steps = time_ < 0 ? 1 : x.size(time_);
  a_.batch_size = row_ < 0 ? 1 : x.size(row_);
  a_.x = x.data();
  a_.x_time_stride = time_ < 0 ? 0 : x.stride(time_);
  a_.x_row_stride = row_ < 0 ? 0 : x.stride(row_);
  return a_.time_steps > 0 && a_.batch_size > 0;
}

template <class Use> bool Call::with_state_sizes(int64_t columns, const Use &use) const {
  const int64_t cells = shape_.num_cells(), rows = state_batch();
  if (of_cell_)
    return row_ < 0 ? use(Sizes{columns}) : use(Sizes{rows, columns});
  return row_ < 0 ? use(Sizes{cells, columns}) : use(Sizes{cells, rows, columns});
}

bool Call::take_states(const Arguments &given) {
  if (!h.take(given.h) || !c.take(given.c))
    return false;
  const std::optional<DataType> type = h.type();
  if (!type || c.type() != type || (*type != DataType::float32 && *type != a_.data_type))
    return false;
  if (given.state_rows && !take_state_rows(given.state_rows))
    return false;
  a_.state_type = *type;
  a_.h0 = h.data();
  a_.c0 = c.data();
  return with_state_sizes(shape_.output_size(), [&](Sizes sizes) { return h.is(sizes); }) &&
         with_state_sizes(shape_.hidden_size, [&](Sizes sizes) { return c.is(sizes); });
}

bool Call::take_state_rows(PyObject *list) {
  if (!PyList_Check(list) || row_ < 0 || PyList_GET_SIZE(list) != a_.batch_size || h.dims() != 3)
    return false;
  const auto count = static_cast<size_t>(a_.batch_size);
  state_rows_.reset(new (std::nothrow) int64_t[count]);
  for (size_t i = 0; state_rows_ && i < count; ++i)
    state_rows_[i] = PyLong_AsLongLong(PyList_GetItem(list, static_cast<Py_ssize_t>(i)));
  a_.state_rows = state_rows_.get();
  a_.state_batch = h.size(1);
  return a_.state_rows && !PyErr_Occurred();
}

template <class Output> void Call::put_strides(const Output &y) {
  a_.y = y.data();
  a_.y_time_stride = time_ < 0 ? 0 : y.stride(time_);
  a_.y_row_stride = row_ < 0 ? 0 : y.stride(row_);
}

bool Call::put(NewTensor &y) {
  std::array<int64_t, 3> sizes{};
  const int dims = x.dims() + (takes_ids_ ? 1 : 0);
  std::copy(x.sizes(), x.sizes() + dims - 1, sizes.begin());
  sizes[static_cast<size_t>(dims - 1)] = output_columns();
  if (!y.allocate(a_.data_type, dims, sizes.data()))
    return false;
  put_strides(y);
  return true;
}

bool Call::put(const TorchTensor &y) {
  const bool as_wide =
      row_ < 0 ? y.is({output_columns()}) : y.is({a_.batch_size, output_columns()});
  if (!as_wide || y.type() != a_.data_type || y.overlaps(x) ||
      (a_.h0 && (y.overlaps(h) || y.overlaps(c))))
    return false;
  put_strides(y);
  return true;
}

bool Call::put(NewTensor &h_n, NewTensor &c_n) {
  const auto make = [&](NewTensor &state, int64_t columns) {
    return with_state_sizes(columns, [&](Sizes sizes) {
      return state.allocate(a_.state_type, static_cast<int>(sizes.size()), sizes.begin());
    });
  };
  if (!make(h_n, shape_.output_size()) || !make(c_n, shape_.hidden_size))
    return false;
  a_.h_n = h_n.data();
  a_.c_n = c_n.data();
  return true;
}

bool Call::put_h_for_y(const NewTensor &h_n) {
  put_strides(h_n);
  return a_.state_type == a_.data_type && shape_.num_cells() == 1;
}

bool Call::put_in_place() {
  if (!a_.h0 || h.overlaps(c) || h.overlaps(x) || c.overlaps(x))
    return false;
  a_.h_n = h.data();
  a_.c_n = c.data();
  return true;
}

bool Call::is_short() const {
  int64_t work;
  return !__builtin_mul_overflow(a_.time_steps, a_.batch_size, &work) &&
         !__builtin_mul_overflow(work, packed_.size(0) + kBytesOfStep, &work) && work <= kShortCall;
}

bool Call::run() const {
  PyThreadState *const thread = is_short() ? nullptr : PyEval_SaveThread();
  const bool done = functions->run(&lstm_, a_);
  if (thread)
    PyEval_RestoreThread(thread);
  return done;
}

} // namespace lstm_fastkernels
