// The runtime on NumPy arrays: check, allocate, call. No torch, no arithmetic.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bindings/python/arguments.h"
#include "bindings/python/state.h"
#include "lstm_fastkernels/file.h"
#include "lstm_fastkernels/isa.h"

namespace lstm_fastkernels {
namespace {

// What pybind11 does not name of NumPy's C interface.
constexpr int kNumpyHalf = 23;           // NPY_HALF
constexpr int kNumpyEnsureCopy = 0x0020; // NPY_ARRAY_ENSURECOPY

std::string sizes_of(const py::array &array) {
  return py::str(array.attr("shape")).cast<std::string>();
}

// Of that type and in this machine's byte order.
bool holds(const py::array &array, int type_number) {
  const auto &numpy = py::detail::npy_api::get();
  return numpy.PyArray_EquivTypes_(array.dtype().ptr(), py::dtype(type_number).ptr());
}

// x as the kernels take it: aligned, the last dimension without gaps, in memory that they do not
// write to. Otherwise a copy.
py::array readable(const py::array &x, const PyState &state) {
  const py::ssize_t last = x.ndim() - 1, size = x.itemsize();
  bool fits = !state.owns(x.data()) && (x.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) &&
              (x.shape(last) == 1 || x.strides(last) == size);
  for (py::ssize_t i = 0; i < last; ++i)
    fits = fits && x.strides(i) % size == 0;
  if (fits)
    return x;
  py::array copied = py::array::ensure(x, py::array::c_style | kNumpyEnsureCopy);
  if (!copied)
    throw std::bad_alloc();
  return copied;
}

class PyLstm {
public:
  // Reading is Python's: its errors are the ones that people know.
  static PyLstm load(const py::object &path, const py::object &of) {
    const std::string name = text_argument("name", of);
    const py::object pure = py::module_::import("pathlib").attr("Path")(path);
    const py::bytes contents =
        py::module_::import("lstm_fastkernels.io.read").attr("read_file")(pure);
    const std::string_view bytes(contents);
    const std::string shown = py::bytes(py::str(pure).attr("encode")("utf-8", "replace"));
    const py::gil_scoped_release release;
    const File file = File::from_memory(bytes.data(), bytes.size(), shown);
    return PyLstm(Lstm::load(file, name), file.lstm(name).batch_first);
  }

  const LstmShape &shape() const { return lstm_.shape(); }
  int64_t columns() const { return shape().num_directions * shape().output_size(); }
  bool batch_first() const { return batch_first_; }
  size_t packed_bytes() const { return lstm_.packed_bytes(); }

  std::unique_ptr<PyState> state(const py::object &batch_size) const {
    return std::make_unique<PyState>(State(shape(), integer_argument("batch_size", batch_size)));
  }

  py::array forward(const py::object &given, const py::object &state_or_none,
                    const py::object &lengths, const py::object &most_threads) const {
    const py::array x = array_argument("x", given);
    PyState *const state =
        state_or_none.is_none() ? nullptr : &state_argument("state", state_or_none);
    const int64_t threads = integer_argument("threads", most_threads);
    if (threads < 1)
      fail("threads must be at least 1, got " + std::to_string(threads));
    std::optional<PyState::Use> use;
    if (state)
      use.emplace(*state);
    // Before anything of x is read: this may run code that changes it.
    const std::optional<Integers> counts = integers_argument("lengths", lengths);
    const bool batched = x.ndim() == 3;
    if (!batched && x.ndim() != 2)
      fail("x must have 2 or 3 dimensions, got " + sizes_of(x));
    const int time = batched && batch_first_ ? 1 : 0, row = 1 - time;
    const int64_t batch_size = batched ? x.shape(row) : 1;
    if (state)
      return run(x, time, batched ? row : -1, batch_size, *state, counts, threads);
    PyState zeros(State(shape(), batch_size));
    return run(x, time, batched ? row : -1, batch_size, zeros, counts, threads);
  }

  py::array step(const py::object &given, const py::object &of) const {
    const py::array x = array_argument("x", given);
    PyState &state = state_argument("state", of);
    const PyState::Use use(state);
    if (x.ndim() != 1 && x.ndim() != 2)
      fail("x must have 1 or 2 dimensions, got " + sizes_of(x));
    const bool batched = x.ndim() == 2;
    return run(x, -1, batched ? 0 : -1, batched ? x.shape(0) : 1, state, std::nullopt, 1);
  }

private:
  PyLstm(Lstm lstm, bool batch_first) : lstm_(std::move(lstm)), batch_first_(batch_first) {}

  // `time` and `row` are dimensions of x; -1: there is none, and so one step or row. The state is
  // the caller's to use.
  py::array run(const py::array &given, int time, int row, int64_t batch_size, PyState &state,
                const std::optional<Integers> &lengths, int64_t threads) const {
    LstmArguments a;
    if (holds(given, py::detail::npy_api::NPY_FLOAT_))
      a.data_type = DataType::float32;
    else if (holds(given, kNumpyHalf))
      a.data_type = DataType::float16;
    else
      throw py::type_error("x must be float32 or float16, got " +
                           py::str(given.dtype()).cast<std::string>() +
                           ": use .astype(numpy.float32)");
    if (given.shape(given.ndim() - 1) != shape().input_size)
      fail("x must have " + std::to_string(shape().input_size) + " columns, got " +
           sizes_of(given));
    State &h_and_c = state.state;
    if (h_and_c.layers() != shape().num_cells() || h_and_c.output_size() != shape().output_size() ||
        h_and_c.hidden_size() != shape().hidden_size)
      fail("state: it was made for another LSTM");
    if (h_and_c.batch_size() != batch_size)
      fail("state: it holds " + std::to_string(h_and_c.batch_size()) + " rows, x has " +
           std::to_string(batch_size));

    const py::array x = readable(given, state);
    std::vector<py::ssize_t> sizes(x.shape(), x.shape() + x.ndim());
    sizes.back() = columns();
    py::array y(x.dtype(), sizes);
    const auto stride = [](const py::array &of, int dimension) -> int64_t {
      return dimension < 0 ? 0 : of.strides(dimension) / of.itemsize();
    };
    a.time_steps = time < 0 ? 1 : x.shape(time);
    a.batch_size = batch_size;
    a.x = x.data();
    a.y = y.mutable_data();
    a.x_time_stride = stride(x, time);
    a.x_row_stride = stride(x, row);
    a.y_time_stride = stride(y, time);
    a.y_row_stride = stride(y, row);
    const std::vector<int64_t> counts = copied(lengths, batch_size);
    a.lengths = lengths ? counts.data() : nullptr;
    a.h0 = a.h_n = h_and_c.h();
    a.c0 = a.c_n = h_and_c.c();
    a.threads = static_cast<int>(std::min<int64_t>(threads, std::numeric_limits<int>::max()));
    const py::gil_scoped_release release;
    lstm_.forward(a);
    return y;
  }

  // Another thread could change the caller's between a check and its use.
  static std::vector<int64_t> copied(const std::optional<Integers> &lengths, int64_t batch_size) {
    if (!lengths)
      return {};
    if (lengths->ndim() != 1 || lengths->shape(0) != batch_size)
      fail("lengths must have one element for each of the " + std::to_string(batch_size) +
           " rows, got " + sizes_of(*lengths));
    return {lengths->data(), lengths->data() + lengths->size()};
  }

  Lstm lstm_;
  bool batch_first_;
};

} // namespace
} // namespace lstm_fastkernels

PYBIND11_MODULE(_runtime, m) {
  using namespace lstm_fastkernels;

  py::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown)
        std::rethrow_exception(thrown);
    } catch (const Error &error) {
      // A message may quote a file that is no text.
      const std::string_view what = error.what();
      PyObject *const text = PyUnicode_DecodeUTF8(what.data(), py::ssize_t(what.size()), "replace");
      py::set_error(PyExc_ValueError, py::reinterpret_steal<py::object>(text));
    }
  });

  py::class_<PyState>(m, "State",
                      "h and c of a batch of sequences: the memory of a stream.\n\n"
                      "One thread may use it at a time: another one's call raises ValueError.")
      .def_property_readonly("batch_size", [](const PyState &s) { return s.state.batch_size(); })
      .def_property_readonly(
          "h",
          [](const py::object &self) {
            State &s = self.cast<PyState &>().state;
            return view(self, s.h(), s.output_size());
          },
          "float32 [layers * directions, batch_size, output_size]: a view, to read and to write.")
      .def_property_readonly(
          "c",
          [](const py::object &self) {
            State &s = self.cast<PyState &>().state;
            return view(self, s.c(), s.hidden_size());
          },
          "float32 [layers * directions, batch_size, hidden_size]: a view, to read and to write.")
      .def("copy", &copy, "A state of its own with the same values.")
      .def("reset", &reset, py::arg("row") = py::none(), "Zeros, in all rows or in one.")
      .def("copy_row", &copy_row, py::arg("row"), py::arg("source"), py::arg("source_row"),
           "Takes over a row of another state of this LSTM, of any batch size.")
      .def("save", &save, "Bytes that describe themselves.")
      .def_static("restore", &restore, py::arg("saved"),
                  "The state that was saved. Raises ValueError for other bytes.")
      .def(py::pickle(&save, &restore));

  py::class_<PyLstm>(m, "LSTM",
                     "An LSTM stack from a file of lstm_fastkernels.save_file, on NumPy arrays.\n\n"
                     "Its outputs are those of the torch module, bit by bit. Any number of threads "
                     "may run it at once,\neach with states of its own; the GIL is released.")
      .def_static("load", &PyLstm::load, py::arg("path"), py::arg("name") = "",
                  "The LSTM of that name in the file, \"\" for one that was saved by itself.\n\n"
                  "Raises OSError if the file cannot be read, ValueError if it is not valid: the "
                  "message names the tensor.")
      .def_property_readonly("input_size", [](const PyLstm &l) { return l.shape().input_size; })
      .def_property_readonly("hidden_size", [](const PyLstm &l) { return l.shape().hidden_size; })
      .def_property_readonly("proj_size", [](const PyLstm &l) { return l.shape().proj_size; })
      .def_property_readonly("num_layers", [](const PyLstm &l) { return l.shape().num_layers; })
      .def_property_readonly("bidirectional",
                             [](const PyLstm &l) { return l.shape().num_directions == 2; })
      .def_property_readonly("batch_first", &PyLstm::batch_first)
      .def_property_readonly("packed_bytes", &PyLstm::packed_bytes,
                             "Bytes that the kernels read: weights, indices, scales, biases.")
      .def("state", &PyLstm::state, py::arg("batch_size") = 1, "A state of zeros.")
      .def("forward", &PyLstm::forward, py::arg("x"), py::arg("state") = py::none(), py::kw_only(),
           py::arg("lengths") = py::none(), py::arg("threads") = 1,
           "y for a batch of sequences; goes on from `state` and leaves the last one there.\n\n"
           "x: [T, B, I], [B, T, I] if the module was batch_first, or [T, I] for one sequence; "
           "float32 or float16.\nIt is not copied if its last dimension is contiguous. y has its "
           "dtype. state: of batch size B; None is\nzeros, which are forgotten. lengths: integers "
           "[B], each in 1..T: y is zero past a row's length. At most\n`threads` threads work, one "
           "or more. Raises TypeError for another dtype, ValueError for wrong sizes.")
      .def("step", &PyLstm::step, py::arg("x"), py::arg("state"),
           "y of one time step, x [B, I], or [I] for one row; goes on from `state` and leaves the "
           "next one there.\n\nDtypes and errors are those of forward.");

  m.def(
      "get_isa", [] { return std::string(active_isa()); },
      "The instruction set that kernels use, one of supported_isas().");
  m.def(
      "set_isa", [](const py::object &name) { set_isa(text_argument("name", name)); },
      py::arg("name"), "Chooses one of supported_isas() for this module, from the next call on.");
  m.def(
      "release_memory", &release_memory, py::call_guard<py::gil_scoped_release>(),
      "Frees what this module keeps between calls: scratch memory of threads, up to 32 MB each, "
      "and\n"
      "idle worker threads, which end by themselves after 10 seconds. Calls that run keep theirs.");
  m.def(
      "supported_isas",
      [] {
        std::vector<std::string> names;
        for (const std::string_view isa : supported_isas())
          names.emplace_back(isa);
        return names;
      },
      "The instruction sets that this machine and LSTM_FASTKERNELS_ISA allow, lowest first.");
}
