// Stacks on the device that the emulator is: its memory is the host's.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cuda/host/driver.h"
#include "lstm_fastkernels/cuda.h"
#include "stack.h"

namespace lstm_fastkernels {

// Exactly as many bytes as asked for, filled with marks, aligned as a device's memory is.
class DeviceMemory {
public:
  explicit DeviceMemory(size_t bytes);
  uint8_t *data() const { return bytes_.get(); }

private:
  struct Delete {
    void operator()(uint8_t *p) const;
  };
  std::unique_ptr<uint8_t[], Delete> bytes_;
};

// A stack as a caller of the CUDA interface holds it.
class StackOnDevice {
public:
  explicit StackOnDevice(const SourceStack &stack);
  // What cuda::PackPlan wrote for a stack of this shape, perhaps changed since.
  StackOnDevice(const LstmShape &shape, std::vector<uint8_t> packed);

  const cuda::DeviceStack &view() const { return view_; }
  const std::vector<uint8_t> &packed() const { return packed_; }
  void forward(const LstmArguments &arguments) const;
  // As planned; without choices, by launches for each step.
  // Persistent shapes that say nothing of rows have as few ranges as there must be.
  void forward(const LstmArguments &arguments, cuda::Plan plan) const;

private:
  std::vector<uint8_t> packed_;
  DeviceMemory device_;
  cuda::DeviceStack view_;
};

Result forward(const StackOnDevice &stack, const Sequence &sequence,
               const std::vector<int64_t> &lengths = {});
// As a plan says, with so many steps a chunk; 0: as many as a call takes.
Result forward(const StackOnDevice &stack, const Sequence &sequence, cuda::Plan plan,
               int64_t steps = 0, const std::vector<int64_t> &lengths = {});

} // namespace lstm_fastkernels
