// LSTMs as Python has them.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bindings/python/arguments.h"
#include "bindings/python/arrays.h"
#include "bindings/python/state.h"
#include "lstm_fastkernels/file.h"

namespace lstm_fastkernels {

class PyLstm {
public:
  static PyLstm load(const py::object &path, const py::object &of, const py::object &map) {
    const std::string name = text_argument("name", of);
    const bool mapped = flag_argument("mmap", map);
    const py::object pure = py::module_::import("pathlib").attr("Path")(path);
    const std::string shown = py::bytes(py::str(pure).attr("encode")("utf-8", "replace"));
    // Opening and reading are Python's: its errors are the ones that people know.
    const py::module_ read = py::module_::import("lstm_fastkernels.io.read");
    if (mapped) {
      const Opened opened{read.attr("open_file")(pure)};
      const int descriptor = opened.file.attr("fileno")().cast<int>();
      const py::gil_scoped_release release;
      return PyLstm(File::map(descriptor, shown), name);
    }
    const py::bytes contents = read.attr("read_file")(pure);
    const std::string_view bytes(contents);
    const py::gil_scoped_release release;
    return PyLstm(File::from_memory(bytes.data(), bytes.size(), shown), name);
  }

  const LstmShape &shape() const { return lstm_.shape(); }
  const Lstm &lstm() const { return lstm_; }
  int64_t columns() const { return shape().num_directions * shape().output_size(); }
  bool takes_ids() const { return lstm_.takes_ids(); }
  bool batch_first() const { return batch_first_; }
  size_t packed_bytes() const { return lstm_.packed_bytes(); }
  bool shares_file() const { return lstm_.shares_file(); }

  std::unique_ptr<PyState> state(const py::object &batch_size) const {
    return std::make_unique<PyState>(State(shape(), integer_argument("batch_size", batch_size)));
  }

  py::array forward(const py::object &given, const py::object &state_or_none,
                    const py::object &lengths, const py::object &most_threads) const {
    const py::array x = array_argument("x", given);
    PyState *const state =
        state_or_none.is_none() ? nullptr : &state_argument("state", state_or_none);
    const int threads = threads_argument(most_threads);
    std::optional<PyState::Use> use;
    if (state)
      use.emplace(*state);
    // Before anything of x is read: this may run code that changes it.
    const std::optional<Integers> counts = integers_argument("lengths", lengths);
    const bool batched = outer_dimensions(x, 1) == 2;
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
    const bool batched = outer_dimensions(x, 0) == 1;
    return run(x, -1, batched ? 0 : -1, batched ? x.shape(0) : 1, state, std::nullopt, 1);
  }

private:
  // A Python file, closed at the end.
  struct Opened {
    py::object file;
    ~Opened() { file.attr("close")(); }
  };

  PyLstm(const File &file, const std::string &name)
      : lstm_(Lstm::load(file, name)), batch_first_(file.lstm(name).batch_first) {}

  // Those of x that are not columns, which ids do not have: `least` or one more.
  int outer_dimensions(const py::array &x, int least) const {
    const int columns = takes_ids() ? 0 : 1, outer = static_cast<int>(x.ndim()) - columns;
    if (outer != least && outer != least + 1)
      fail("x must have " + std::to_string(least + columns) + " or " +
           std::to_string(least + columns + 1) + " dimensions, got " + sizes_of(x));
    return outer;
  }

  // `time` and `row` are dimensions of x; -1: there is none, and so one step or row. The state is
  // the caller's to use.
  py::array run(const py::array &given, int time, int row, int64_t batch_size, PyState &state,
                const std::optional<Integers> &lengths, int threads) const {
    LstmArguments a;
    if (takes_ids())
      a.id_type = id_type_of(given);
    else
      a.data_type = data_type_of(given, shape().input_size);
    State &h_and_c = state.state;
    if (h_and_c.layers() != shape().num_cells() || h_and_c.output_size() != shape().output_size() ||
        h_and_c.hidden_size() != shape().hidden_size)
      fail("state: it was made for another LSTM");
    if (h_and_c.batch_size() != batch_size)
      fail("state: it holds " + std::to_string(h_and_c.batch_size()) + " rows, x has " +
           std::to_string(batch_size));

    const py::ssize_t outer = given.ndim() - (takes_ids() ? 0 : 1);
    const bool is_state = state.owns(given.data()); // which kernels write to
    const py::array x = readable(given, outer, is_state);
    py::array y = output_for(x, outer, columns());
    a.time_steps = time < 0 ? 1 : x.shape(time);
    a.batch_size = batch_size;
    a.x = x.data();
    a.y = y.mutable_data();
    a.x_time_stride = stride_of(x, time);
    a.x_row_stride = stride_of(x, row);
    a.y_time_stride = stride_of(y, time);
    a.y_row_stride = stride_of(y, row);
    const std::vector<int64_t> counts = copied(lengths, batch_size);
    a.lengths = lengths ? counts.data() : nullptr;
    a.h0 = a.h_n = h_and_c.h();
    a.c0 = a.c_n = h_and_c.c();
    a.threads = threads;
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

} // namespace lstm_fastkernels
