#include "lstm_fastkernels/model.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "common/fail.h"
#include "runtime/state_rows.h"

namespace lstm_fastkernels {
namespace {

constexpr char kMagic[8] = {'L', 'F', 'K', 'S', 'T', 'A', 'T', 'E'};
constexpr uint32_t kVersion = 1;
constexpr uint32_t kMaxSize = 65535, kMaxLayers = 2 * 1024; // directions count as layers

// What precedes h and c in a saved state; all numbers are little-endian.
struct Header {
  char magic[8];
  uint32_t version, layers, output_size, hidden_size;
  uint64_t batch_size;
};
static_assert(sizeof(Header) == 32);
#if defined(__BYTE_ORDER__)
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);
#endif

[[noreturn]] void refuse(const std::string &what) {
  throw Error(ErrorCode::invalid_file, "saved state: " + what);
}

} // namespace

State::State(const LstmShape &shape, int64_t batch_size)
    : State((validate(shape), shape.num_cells()), shape.output_size(), shape.hidden_size,
            batch_size) {}

State::State(int64_t layers, int64_t output_size, int64_t hidden_size, int64_t batch_size)
    : layers_(layers), output_size_(output_size), hidden_size_(hidden_size),
      batch_size_(batch_size) {
  if (batch_size < 0 || batch_size > kMaxStateBatch)
    fail("batch_size must be in 0.." + std::to_string(kMaxStateBatch) + ", got " +
         std::to_string(batch_size));
  h_.resize(static_cast<size_t>(layers_ * batch_size * output_size_));
  c_.resize(static_cast<size_t>(layers_ * batch_size * hidden_size_));
}

void State::reset() {
  std::fill(h_.begin(), h_.end(), 0.0f);
  std::fill(c_.begin(), c_.end(), 0.0f);
}

void State::check_row(int64_t row) const {
  if (row < 0 || row >= batch_size_)
    fail("row must be in 0.." + std::to_string(batch_size_ - 1) + ", got " + std::to_string(row));
}

void State::reset_row(int64_t row) {
  check_row(row);
  for (int64_t layer = 0; layer < layers_; ++layer) {
    const int64_t at = layer * batch_size_ + row;
    std::fill_n(h() + at * output_size_, output_size_, 0.0f);
    std::fill_n(c() + at * hidden_size_, hidden_size_, 0.0f);
  }
}

void State::copy_row(int64_t row, const State &from, int64_t from_row) {
  if (from.layers_ != layers_ || from.output_size_ != output_size_ ||
      from.hidden_size_ != hidden_size_)
    fail("copy_row: the states are of different LSTMs");
  check_row(row);
  from.check_row(from_row);
  if (this == &from && row == from_row)
    return;
  for (int64_t layer = 0; layer < layers_; ++layer) {
    const int64_t at = layer * batch_size_ + row, there = layer * from.batch_size_ + from_row;
    std::copy_n(from.h() + there * output_size_, output_size_, h() + at * output_size_);
    std::copy_n(from.c() + there * hidden_size_, hidden_size_, c() + at * hidden_size_);
  }
}

size_t State::saved_bytes() const {
  return sizeof(Header) + (h_.size() + c_.size()) * sizeof(float);
}

void State::save(void *saved, size_t bytes) const {
  if (bytes != saved_bytes())
    fail("save: the state takes " + std::to_string(saved_bytes()) + " bytes, not " +
         std::to_string(bytes));
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kVersion;
  header.layers = static_cast<uint32_t>(layers_);
  header.output_size = static_cast<uint32_t>(output_size_);
  header.hidden_size = static_cast<uint32_t>(hidden_size_);
  header.batch_size = static_cast<uint64_t>(batch_size_);
  std::memcpy(saved, &header, sizeof header);
  uint8_t *to = static_cast<uint8_t *>(saved) + sizeof header;
  for (const std::vector<float> *values : {&h_, &c_})
    to = std::copy_n(reinterpret_cast<const uint8_t *>(values->data()),
                     values->size() * sizeof(float), to);
}

State State::restore(const void *saved, size_t bytes) {
  Header header;
  if (bytes < sizeof header)
    refuse("expected at least " + std::to_string(sizeof header) + " bytes, got " +
           std::to_string(bytes));
  std::memcpy(&header, saved, sizeof header);
  if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0)
    refuse("bad magic number");
  if (header.version != kVersion)
    refuse("expected version " + std::to_string(kVersion) + ", got " +
           std::to_string(header.version));
  // The sizes are checked against the bytes before anything is allocated for them.
  const uint64_t columns = uint64_t{header.output_size} + header.hidden_size;
  const uint64_t floats = (bytes - sizeof header) / sizeof(float);
  const uint64_t row = header.layers * columns; // below 2^64: of 11 and 17 bits
  if (header.layers < 1 || header.layers > kMaxLayers || header.hidden_size > kMaxSize ||
      header.output_size < 1 || header.output_size > header.hidden_size)
    refuse("its sizes are not possible");
  if (bytes != sizeof header + floats * sizeof(float) || floats % row ||
      floats / row != header.batch_size)
    refuse("its sizes need another number of bytes than " + std::to_string(bytes));
  State state(header.layers, header.output_size, header.hidden_size,
              static_cast<int64_t>(header.batch_size));
  const uint8_t *from = static_cast<const uint8_t *>(saved) + sizeof header;
  for (std::vector<float> *values : {&state.h_, &state.c_}) {
    std::copy_n(from, values->size() * sizeof(float), reinterpret_cast<uint8_t *>(values->data()));
    from += values->size() * sizeof(float);
  }
  return state;
}

} // namespace lstm_fastkernels
