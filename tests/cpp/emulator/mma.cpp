// The arithmetic of mma.sync.m16n8k32 for 8-bit integers; built without sanitizers, which would
// take most of the tests' time here.
#include <cstring>

#include "emulator.h"

namespace lstm_fastkernels {
namespace device {
namespace emulator {
namespace {

constexpr int kRows = 16, kColumns = 8, kDepth = 32;

template <class Byte, int rows>
void widen(const uint8_t (&bytes)[rows][kDepth], int16_t (&wide)[rows][kDepth]) {
  for (int i = 0; i < rows; ++i)
    for (int k = 0; k < kDepth; ++k)
      wide[i][k] = static_cast<Byte>(bytes[i][k]);
}

} // namespace

void multiply(const Product *const (&lanes)[32], bool unsigned_b) {
  uint8_t a_bytes[kRows][kDepth], b_bytes[kColumns][kDepth]; // b by column
  for (int lane = 0; lane < 32; ++lane) {
    const int group = lane / 4, depth = lane % 4 * 4;
    for (int half = 0; half < 2; ++half) {
      std::memcpy(&a_bytes[group][depth + half * 16], &lanes[lane]->a[half * 2], 4);
      std::memcpy(&a_bytes[group + 8][depth + half * 16], &lanes[lane]->a[half * 2 + 1], 4);
      std::memcpy(&b_bytes[group][depth + half * 16], &lanes[lane]->b[half], 4);
    }
  }
  int16_t a[kRows][kDepth], b[kColumns][kDepth];
  widen<int8_t>(a_bytes, a);
  if (unsigned_b)
    widen<uint8_t>(b_bytes, b);
  else
    widen<int8_t>(b_bytes, b);
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i) {
      const int16_t *row = a[lane / 4 + i / 2 * 8], *column = b[lane % 4 * 2 + i % 2];
      int32_t product = 0; // far from overflowing
      for (int k = 0; k < kDepth; ++k)
        product += row[k] * column[k];
      int32_t &sum = lanes[lane]->sum[i];
      sum = static_cast<int32_t>(static_cast<uint32_t>(sum) + static_cast<uint32_t>(product));
    }
}

} // namespace emulator
} // namespace device
} // namespace lstm_fastkernels
