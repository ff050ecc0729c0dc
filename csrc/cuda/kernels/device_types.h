// Types shared by kernels and host code.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lstm_fastkernels {
namespace device {

// 16 bytes, stored and loaded at once.
struct alignas(16) Words4 {
  uint32_t words[4];
};

// Device properties that decide which kernels it can run.
struct Limits {
  int multiprocessors = 0;
  size_t shared_bytes = 0; // of a block, at most
  bool clusters = false;   // compute capability 9.0
};

} // namespace device
} // namespace lstm_fastkernels
