// An LSTM of a file, packed.
#include "file/json.h"
#include "lstm_fastkernels/file.h"

namespace lstm_fastkernels {
namespace {

// Rows cost memory, even without weights: some 16 bytes packed and more while they are. So a file
// that claims more than a million of them must hold a byte for 16.
constexpr int64_t kUnquestionedRows = int64_t{1} << 20;
constexpr int64_t kMostRowsAByte = 16;

void check_rows(const LstmShape &shape, const std::map<std::string, TensorView> &tensors) {
  const int64_t rows = shape.num_cells() * (8 * shape.hidden_size + shape.proj_size);
  int64_t bytes = 0;
  for (const auto &[name, tensor] : tensors)
    bytes += static_cast<int64_t>(tensor.bytes);
  if (rows > kUnquestionedRows && rows / kMostRowsAByte > bytes)
    throw Error(ErrorCode::invalid_file, "the LSTM's sizes are not possible with tensors of " +
                                             std::to_string(bytes) + " bytes");
}

} // namespace

Lstm Lstm::load(const File &file, std::string_view name) {
  const LstmConfiguration configuration = file.lstm(name);
  try {
    std::map<std::string, TensorView> tensors = file.lstm_tensors(name);
    check_rows(configuration.shape, tensors);
    const CanonicalTensors canonical(configuration.shape, configuration.bias,
                                     configuration.precisions, std::move(tensors));
    return Lstm(configuration.shape, canonical.cells());
  } catch (const Error &error) {
    // The message names the tensor alone.
    refuse_file(file.name() + ": " + (name.empty() ? "" : std::string(name) + ".") + error.what());
  }
}

} // namespace lstm_fastkernels
