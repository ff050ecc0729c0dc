// Whatever bytes there are, as a file and as a saved state: loading gives a working LSTM or throws
// Error for an invalid file, and nothing else.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "lstm_fastkernels/file.h"
#include "lstm_fastkernels/isa.h"

namespace lfk = lstm_fastkernels;

namespace {

constexpr int64_t kSteps = 2, kRows = 2;
constexpr int64_t kMostValues = int64_t{1} << 16; // of a state: what is larger only takes time

void expect(bool holds, const char *what) {
  if (holds)
    return;
  std::fprintf(stderr, "expected %s\n", what);
  std::abort();
}

// False where the bytes were refused.
template <class Task> bool is_accepted(const Task &task) {
  try {
    task();
    return true;
  } catch (const lfk::Error &error) {
    expect(error.code() == lfk::ErrorCode::invalid_file, "an error of the file");
    return false;
  }
}

// y, h and c, one behind the other.
std::vector<float> run(const lfk::Lstm &lstm, std::string_view isa) {
  lfk::set_isa(isa);
  const lfk::LstmShape &shape = lstm.shape();
  std::vector<float> x(static_cast<size_t>(kSteps * kRows * shape.input_size));
  for (size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<float>(i % 7) - 2.75f;
  std::vector<float> y(
      static_cast<size_t>(kSteps * kRows * shape.num_directions * shape.output_size()));
  lfk::State state(shape, kRows);
  if (lstm.takes_ids()) {
    const int64_t last = shape.input_size - 1;
    const int64_t ids[kSteps * kRows] = {last, 0, last / 2, last};
    lstm.forward_ids(ids, kSteps, kRows, state, y.data());
  } else {
    lstm.forward(x.data(), kSteps, kRows, state, y.data());
  }
  const int64_t rows = state.layers() * kRows;
  y.insert(y.end(), state.h(), state.h() + rows * state.output_size());
  y.insert(y.end(), state.c(), state.c() + rows * state.hidden_size());
  return y;
}

bool same_bits(float a, float b) {
  return std::memcmp(&a, &b, sizeof a) == 0 || (std::isnan(a) && std::isnan(b));
}

void load(const lfk::File &file, const std::string &name) {
  const lfk::Lstm lstm = lfk::Lstm::load(file, name);
  const lfk::LstmShape &shape = lstm.shape();
  if (shape.num_layers * (shape.input_size + shape.hidden_size) > kMostValues)
    return;
  const std::vector<float> scalar = run(lstm, "scalar");
  for (std::string_view isa : lfk::supported_isas()) {
    const std::vector<float> other = run(lstm, isa);
    expect(std::equal(scalar.begin(), scalar.end(), other.begin(), same_bits),
           "the same outputs on every instruction set");
  }
}

void read_everything(const lfk::File &file, const uint8_t *data, size_t size) {
  for (const auto &[key, value] : file.metadata())
    expect(key.size() + value.size() <= size, "metadata out of the file");
  for (const std::string &name : file.tensor_names()) {
    const lfk::TensorView tensor = file.tensor(name);
    const uint8_t *const begin = static_cast<const uint8_t *>(tensor.data);
    expect(begin >= data && begin + tensor.bytes <= data + size, "a tensor in the file");
    is_accepted([&] { file.float32(name); });
  }
  for (const std::string &name : file.lstm_names())
    is_accepted([&] { load(file, name); });
}

void restore(const uint8_t *data, size_t size) {
  const lfk::State state = lfk::State::restore(data, size);
  expect(state.saved_bytes() == size, "a state of these bytes");
  std::vector<uint8_t> again(size);
  state.save(again.data(), size);
  expect(std::equal(again.begin(), again.end(), data), "the same state");
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  // Of exactly this size: AddressSanitizer sees every byte that is read beyond.
  const std::shared_ptr<uint8_t> copy(new uint8_t[size], std::default_delete<uint8_t[]>());
  uint8_t *const bytes = copy.get();
  std::copy_n(data, size, bytes);
  is_accepted([&] { read_everything(lfk::File::from_memory(bytes, size, "own"), bytes, size); });
  // Kept by LSTMs that run from it, as a mapped file is.
  is_accepted([&] { read_everything(lfk::File::from_memory(copy, size, "shared"), bytes, size); });
  is_accepted([&] { restore(bytes, size); });
  return 0;
}
