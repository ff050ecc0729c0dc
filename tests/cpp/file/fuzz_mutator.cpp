// libFuzzer's mutations, kept to the header of a file or to its data: a wrong length or an offset
// beyond the end would hide everything behind them.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace {

constexpr size_t kLengthBytes = 8;

size_t header_bytes(const uint8_t *file) {
  uint64_t length = 0;
  for (size_t i = kLengthBytes; i-- > 0;)
    length = length << 8 | file[i];
  return length;
}

} // namespace

extern "C" size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size,
                                          unsigned seed) {
  const bool is_file = size >= kLengthBytes && header_bytes(data) <= size - kLengthBytes;
  if (!is_file || seed % 8 == 0)
    return LLVMFuzzerMutate(data, size, max_size);
  uint8_t *const header = data + kLengthBytes;
  uint8_t *const body = header + header_bytes(data);
  const auto body_bytes = static_cast<size_t>(data + size - body);
  const size_t most = max_size - kLengthBytes - body_bytes;
  if (body_bytes && (seed % 2 || most == 0)) {
    LLVMFuzzerMutate(body, body_bytes, body_bytes); // what it cuts off stays as it was
    return size;
  }
  const std::vector<uint8_t> behind(body, body + body_bytes);
  const size_t length = LLVMFuzzerMutate(header, header_bytes(data), most);
  for (size_t i = 0; i < kLengthBytes; ++i)
    data[i] = static_cast<uint8_t>(uint64_t{length} >> 8 * i);
  std::copy(behind.begin(), behind.end(), header + length);
  return kLengthBytes + length + body_bytes;
}
