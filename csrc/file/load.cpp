// An LSTM of a file: run where it lies packed, or packed.
#include <optional>

#include "file/json.h"
#include "lstm_fastkernels/file.h"

namespace lstm_fastkernels {
namespace {

// call(), with `what` before the messages of its errors.
template <class Call> auto naming(const std::string &what, const Call &call) {
  try {
    return call();
  } catch (const Error &error) {
    refuse_file(what + error.what());
  }
}

} // namespace

Lstm Lstm::load(const File &file, std::string_view name) {
  const LstmConfiguration of = file.lstm(name);
  const std::map<std::string, TensorView> tensors = file.lstm_tensors(name);
  std::optional<TensorView> packed;
  if (!of.packed_from.empty())
    packed = file.packed_tensor(name); // which is there, shared or not
  const std::string lstm_name = name.empty() ? "" : std::string(name) + ".";
  const Lstm loaded = naming(file.name() + ": " + lstm_name, [&] {
    const CanonicalTensors canonical(of.shape, of.bias, of.precisions, tensors);
    std::optional<Lstm> lstm;
    if (packed && file.shared_memory())
      lstm = naming("packed: ", [&] {
        return in_place(file.shared_memory(), packed->data, packed->bytes, of.packed_from, of.shape,
                        of.precisions, tensors);
      });
    return lstm ? *lstm : Lstm(of.shape, canonical.cells());
  });
  for (const auto &[tensor_name, tensor] : tensors)
    file.leave(tensor);
  return loaded;
}

} // namespace lstm_fastkernels
