// Whatever bytes there are, as packed weights: they are refused, or every instruction set reads
// them within bounds and gives the same outputs, and they can be unpacked. Those for CUDA devices
// are only checked and unpacked.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>

#include "check.h"
#include "cuda/host/unpack.h"
#include "support.h"
#include "tampered.h"
#include "weights/unpack.h"

namespace lfk = lstm_fastkernels;

namespace {

// Calls unpack() and makes the tensors, but for those that need much memory, as large blocks do.
template <class Unpack> void make_tensors(const Unpack &unpack) {
  try {
    for (const lfk::UnpackedTensor &tensor : unpack())
      if (tensor.view.bytes < 1 << 20)
        tensor.write(std::vector<uint8_t>(tensor.view.bytes).data());
  } catch (const lfk::Error &) {
  }
}

// Aligned as device memory is, and exactly so long: AddressSanitizer sees what is read beyond.
void unpack_for_cuda(const std::vector<uint8_t> &packed) {
  struct Delete {
    void operator()(uint8_t *p) const { ::operator delete[](p, std::align_val_t{16}); }
  };
  const std::unique_ptr<uint8_t[], Delete> copy(
      static_cast<uint8_t *>(::operator new[](packed.size(), std::align_val_t{16})));
  std::copy(packed.begin(), packed.end(), copy.get());
  make_tensors([&] { return lfk::cuda::unpack(copy.get(), packed.size()); });
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const std::vector<uint8_t> packed(data, data + size);
  try {
    lfk::runs_the_same_everywhere(packed);
  } catch (const check::Failure &failure) {
    std::fprintf(stderr, "%s\n", failure.message.c_str());
    std::abort();
  }
  make_tensors([&] { return lfk::unpack(lfk::PackedStack(packed.data(), packed.size())); });
  unpack_for_cuda(packed);
  return 0;
}

// Changes a few words and no length, which would hide everything behind it.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t, unsigned seed) {
  lfk::Random random(seed);
  const auto below = [&](size_t n) { return static_cast<size_t>(random.bits() % n); };
  for (size_t changes = 1 + below(3); changes > 0; --changes) {
    const size_t width = size_t{1} << below(3);
    if (size < width)
      return size;
    // Records, slices and columns lie in front, most of what follows are weights.
    const size_t words = below(2) ? size / width : std::min<size_t>(size, 2048) / width;
    uint8_t *const at = data + below(words) * width;
    uint32_t word = 0;
    std::memcpy(&word, at, width);
    const uint32_t other = static_cast<uint32_t>(random.bits());
    switch (below(4)) {
    case 0:
      word = other;
      break;
    case 1:
      word += other % 17 - 8;
      break;
    case 2:
      word ^= uint32_t{1} << other % 32;
      break;
    default:
      std::memcpy(&word, data + below(size / width) * width, width);
    }
    std::memcpy(at, &word, width);
  }
  return size;
}
