// An LSTM of a file, packed.
#include "file/json.h"
#include "lstm_fastkernels/file.h"

namespace lstm_fastkernels {
Lstm Lstm::load(const File &file, std::string_view name) {
  const LstmConfiguration configuration = file.lstm(name);
  try {
    const CanonicalTensors canonical(configuration.shape, configuration.bias,
                                     configuration.precisions, file.lstm_tensors(name));
    return Lstm(configuration.shape, canonical.cells());
  } catch (const Error &error) {
    // The message names the tensor alone.
    refuse_file(file.name() + ": " + (name.empty() ? "" : std::string(name) + ".") + error.what());
  }
}

} // namespace lstm_fastkernels
