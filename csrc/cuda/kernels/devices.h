// Devices, as the host sees them. All throw Error where there is no such device.
#pragma once

#include <cstdint>

#include "cuda/kernels/device_types.h"

namespace lstm_fastkernels {
namespace cuda {

// Makes a device the current one of this thread, for a scope.
class DeviceGuard {
public:
  explicit DeviceGuard(int device);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard &) = delete;
  DeviceGuard &operator=(const DeviceGuard &) = delete;

private:
  int before_;
};

// Asked once for each device.
const device::Limits &limits_of(int device);

// The word that a kernel sets to 1 where it waited too long: the host does not wait for kernels.
uint32_t *failure_word(int device);

// Throws Error, once, where a kernel has set it since the last time.
void check_failure(int device);

} // namespace cuda
} // namespace lstm_fastkernels
