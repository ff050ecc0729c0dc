// The runtime on NumPy arrays: check, allocate, call. No torch, no arithmetic.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <string_view>
#include <vector>

#include "bindings/python/lstm.h"
#include "bindings/python/state.h"
#include "bindings/python/streams.h"
#include "lstm_fastkernels/isa.h"

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
      py::set_error(error.code() == ErrorCode::io ? PyExc_OSError : PyExc_ValueError,
                    py::reinterpret_steal<py::object>(text));
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
      .def_static("load", &PyLstm::load, py::arg("path"), py::arg("name") = "", py::kw_only(),
                  py::arg("mmap") = false,
                  "The LSTM of that name in the file, \"\" for one that was saved by itself.\n\n"
                  "mmap: one that was saved with packed=True runs straight from the file's pages, "
                  "which all processes that map it\nshare; shares_file says so. Until it is gone, "
                  "the file may be removed or replaced, as save_file does, but not\nchanged in "
                  "place. Raises OSError if the file cannot be read, ValueError if it is not "
                  "valid: the message names the\ntensor.")
      .def_property_readonly("input_size", [](const PyLstm &l) { return l.shape().input_size; })
      .def_property_readonly("hidden_size", [](const PyLstm &l) { return l.shape().hidden_size; })
      .def_property_readonly("proj_size", [](const PyLstm &l) { return l.shape().proj_size; })
      .def_property_readonly("num_layers", [](const PyLstm &l) { return l.shape().num_layers; })
      .def_property_readonly("bidirectional",
                             [](const PyLstm &l) { return l.shape().num_directions == 2; })
      .def_property_readonly("batch_first", &PyLstm::batch_first)
      .def_property_readonly("takes_ids", &PyLstm::takes_ids,
                             "Whether x is token ids in 0..input_size - 1, see fold_embedding.")
      .def_property_readonly("packed_bytes", &PyLstm::packed_bytes,
                             "Bytes that the kernels read: weights, indices, scales, biases.")
      .def_property_readonly("shares_file", &PyLstm::shares_file,
                             "Whether they are pages of the file, see load.")
      .def("state", &PyLstm::state, py::arg("batch_size") = 1, "A state of zeros.")
      .def("forward", &PyLstm::forward, py::arg("x"), py::arg("state") = py::none(), py::kw_only(),
           py::arg("lengths") = py::none(), py::arg("threads") = 1,
           "y for a batch of sequences; goes on from `state` and leaves the last one there.\n\n"
           "x: [T, B, I], [B, T, I] if the module was batch_first, or [T, I] for one sequence; "
           "float32 or float16.\nIt is not copied if its last dimension is contiguous. y has its "
           "dtype. state: of batch size B; None is\nzeros, which are forgotten. lengths: integers "
           "[B], each in 1..T: y is zero past a row's length. At most\n`threads` threads work, one "
           "or more. If it takes_ids, x is [T, B], [B, T] or [T], int64 or int32, and y float32. "
           "Raises TypeError for\nanother dtype, ValueError for wrong sizes and ids out of range.")
      .def("step", &PyLstm::step, py::arg("x"), py::arg("state"),
           "y of one time step, x [B, I], or [I] for one row; ids [B] or []; goes on from `state` "
           "and leaves the\nnext one there.\n\nDtypes and errors are those of forward.");

  py::class_<PyStreamBatch>(
      m, "StreamBatch",
      "StreamBatch(lstm, capacity): up to `capacity` streams through one LSTM, a time step at a "
      "time.\n\n"
      "A stream has the bits that it would have alone. It is named by an int, 0 or above; that of "
      "one that has\nleft is given to no other. Raises ValueError for streams that are not there, "
      "TypeError for other types;\nthen nothing has changed. One thread may use it at a time: "
      "another one's call raises ValueError.")
      .def(py::init<const py::object &, const py::object &>(), py::arg("lstm"), py::arg("capacity"),
           "Without streams; lstm has one direction.")
      .def_property_readonly("capacity", &PyStreamBatch::capacity)
      .def_property_readonly("streams", &PyStreamBatch::streams,
                             "Those that are there, in ascending order.")
      .def("__len__", &PyStreamBatch::size)
      .def("join", &PyStreamBatch::join,
           "A new stream of zeros. Raises ValueError where `capacity` of them are there.")
      .def("fork", &PyStreamBatch::fork, py::arg("stream"), "A new one with the state of a stream.")
      .def("leave", &PyStreamBatch::leave, py::arg("stream"))
      .def("reset", &PyStreamBatch::reset, py::arg("stream"), "Zeros.")
      .def("reorder", &PyStreamBatch::reorder, py::arg("streams"), py::arg("sources"),
           "Each of `streams` takes the state that its source had before the call, all at once.\n\n"
           "A stream is in `streams` once at most, in `sources` as often as you like.")
      .def("save", &PyStreamBatch::save, py::arg("stream"), "Bytes as of a State of one row.")
      .def("restore", &PyStreamBatch::restore, py::arg("stream"), py::arg("saved"),
           "Takes what was saved of a stream or a State of one row, into one that is there.\n\n"
           "Raises ValueError for other bytes.")
      .def("tick", &PyStreamBatch::tick, py::arg("streams"), py::arg("x"), py::kw_only(),
           py::arg("threads") = 1,
           "y [n, O] of one time step of n streams, each once at most, from x [n, I].\n\n"
           "x: float32 or float16, row i for streams[i]; y has its dtype. If the LSTM takes_ids, x "
           "is [n], int64 or\nint32, and y float32. Other streams keep their states. At most "
           "`threads` threads work. The GIL is released.");

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
