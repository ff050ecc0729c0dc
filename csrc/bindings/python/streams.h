// Streams as Python has them.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bindings/python/arguments.h"
#include "bindings/python/arrays.h"
#include "bindings/python/lstm.h"
#include "bindings/python/one_user.h"
#include "lstm_fastkernels/streams.h"

namespace lstm_fastkernels {

class PyStreamBatch : public OneUser {
public:
  PyStreamBatch(const py::object &lstm, const py::object &capacity)
      : OneUser("streams"),
        batch_(instance_argument<PyLstm>("lstm", lstm, "LSTM.load(path) makes one").lstm(),
               integer_argument("capacity", capacity)) {}

  int64_t capacity() const { return batch_.capacity(); }

  int64_t size() {
    const Use use(*this);
    return batch_.size();
  }
  std::vector<int64_t> streams() {
    const Use use(*this);
    return batch_.streams();
  }
  int64_t join() {
    const Use use(*this);
    return batch_.join();
  }
  int64_t fork(const py::object &stream) {
    const int64_t source = integer_argument("stream", stream);
    const Use use(*this);
    return batch_.fork(source);
  }
  void leave(const py::object &stream) {
    const int64_t leaving = integer_argument("stream", stream);
    const Use use(*this);
    batch_.leave(leaving);
  }
  void reset(const py::object &stream) {
    const int64_t one = integer_argument("stream", stream);
    const Use use(*this);
    batch_.reset(one);
  }

  void reorder(const py::object &streams, const py::object &sources) {
    const Integers to = streams_argument("streams", streams);
    const Integers from = streams_argument("sources", sources);
    if (to.size() != from.size())
      fail("sources must have one for each of the " + std::to_string(to.size()) + " streams, got " +
           std::to_string(from.size()));
    const Use use(*this);
    batch_.reorder(to.data(), from.data(), to.size());
  }

  py::bytes save(const py::object &stream) {
    const int64_t one = integer_argument("stream", stream);
    const Use use(*this);
    py::bytes saved(nullptr, batch_.saved_bytes());
    batch_.save(one, PyBytes_AS_STRING(saved.ptr()), batch_.saved_bytes());
    return saved;
  }
  void restore(const py::object &stream, const py::object &saved) {
    const int64_t one = integer_argument("stream", stream);
    const std::string_view bytes = bytes_argument("saved", saved);
    const Use use(*this);
    batch_.restore(one, bytes.data(), bytes.size());
  }

  py::array tick(const py::object &streams, const py::object &given,
                 const py::object &most_threads) {
    const py::array x = array_argument("x", given);
    const LstmShape &shape = batch_.lstm().shape();
    const bool takes_ids = batch_.lstm().takes_ids();
    TickOptions options;
    options.threads = threads_argument(most_threads);
    const Use use(*this);
    // Before anything of x is read: this may run code that changes it.
    const Integers ready = streams_argument("streams", streams);
    if (x.ndim() != (takes_ids ? 1 : 2))
      fail(std::string("x must have ") + (takes_ids ? "1 dimension" : "2 dimensions") + ", got " +
           sizes_of(x));
    if (takes_ids)
      options.id_type = id_type_of(x);
    else
      options.data_type = data_type_of(x, shape.input_size);
    if (x.shape(0) != ready.size())
      fail("x must have a row for each of the " + std::to_string(ready.size()) + " streams, got " +
           sizes_of(x));
    const py::array rows =
        readable(x, 1, x.strides(0) == 0); // which options would take for no gaps
    py::array y = output_for(rows, 1, shape.output_size());
    options.x_row_stride = stride_of(rows, 0);
    options.y_row_stride = stride_of(y, 0);
    const int64_t *const from = ready.data();
    const void *const in = rows.data();
    void *const out = y.mutable_data();
    const py::gil_scoped_release release;
    batch_.tick(from, ready.size(), in, out, options);
    return y;
  }

private:
  static Integers streams_argument(const char *name, const py::object &given) {
    const std::optional<Integers> streams = integers_argument(name, given);
    if (!streams || streams->ndim() != 1)
      fail_type(name, "a sequence of integers", given);
    return *streams;
  }

  StreamBatch batch_;
};

} // namespace lstm_fastkernels
