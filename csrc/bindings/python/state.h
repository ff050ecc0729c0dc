// States as Python has them.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "bindings/python/arguments.h"
#include "bindings/python/one_user.h"
#include "lstm_fastkernels/model.h"

namespace lstm_fastkernels {

class PyState : public OneUser {
public:
  explicit PyState(State of) : OneUser("state"), state(std::move(of)) {}

  State state;

  // Whether an array that begins there is a view of h or c.
  bool owns(const void *data) const {
    const std::less<const void *> before;
    const int64_t rows = state.layers() * state.batch_size();
    const auto within = [&](const float *values, int64_t columns) {
      return !before(data, values) && before(data, values + rows * columns);
    };
    return within(state.h(), state.output_size()) || within(state.c(), state.hidden_size());
  }
};

// A NumPy view of h or c, which keeps the state alive.
inline py::array_t<float> view(const py::object &self, float *values, int64_t columns) {
  const State &state = self.cast<const PyState &>().state;
  return py::array_t<float>({state.layers(), state.batch_size(), columns}, values, self);
}

inline py::bytes save(PyState &self) {
  const PyState::Use use(self);
  const size_t bytes = self.state.saved_bytes();
  py::bytes saved(nullptr, bytes);
  self.state.save(PyBytes_AS_STRING(saved.ptr()), bytes);
  return saved;
}

inline std::unique_ptr<PyState> copy(PyState &self) {
  const PyState::Use use(self);
  return std::make_unique<PyState>(self.state);
}

inline void reset(PyState &self, const py::object &row) {
  const std::optional<int64_t> one =
      row.is_none() ? std::nullopt : std::optional(integer_argument("row", row));
  const PyState::Use use(self);
  one ? self.state.reset_row(*one) : self.state.reset();
}

inline PyState &state_argument(const char *name, const py::object &given) {
  return instance_argument<PyState>(name, given, "lstm.state(batch_size) makes one");
}

inline void copy_row(PyState &self, const py::object &row, const py::object &source,
                     const py::object &source_row) {
  PyState &from = state_argument("source", source);
  const int64_t to = integer_argument("row", row);
  const int64_t from_row = integer_argument("source_row", source_row);
  const PyState::Use use(self);
  std::optional<PyState::Use> other;
  if (&from != &self)
    other.emplace(from);
  self.state.copy_row(to, from.state, from_row);
}

inline std::unique_ptr<PyState> restore(const py::object &saved) {
  const std::string_view bytes = bytes_argument("saved", saved);
  return std::make_unique<PyState>(State::restore(bytes.data(), bytes.size()));
}

} // namespace lstm_fastkernels
