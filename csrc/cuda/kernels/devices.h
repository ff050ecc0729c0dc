// Devices, for the host. All of these throw Error if there is no such device.
#pragma once

#include <cstdint>

#include "cuda/kernels/device_types.h"

namespace lstm_fastkernels {
namespace cuda {

// Sets this thread's current device for a scope.
class DeviceGuard {
public:
  explicit DeviceGuard(int device);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard &) = delete;
  DeviceGuard &operator=(const DeviceGuard &) = delete;

private:
  int before_;
};

// Queried once for each device.
const device::Limits &limits_of(int device);

// The word that a kernel sets to 1 when a wait times out. The host reads it later, without waiting
// for kernels.
uint32_t *failure_word(int device);

// Throws Error if a kernel has set that word, and clears it.
void check_failure(int device);

} // namespace cuda
} // namespace lstm_fastkernels
