#include "device_guard.h"

#include <exception>

#include "device.h"

namespace lstm_fastkernels {
namespace cuda {

DeviceGuard::DeviceGuard(int device) : before_(device::exchange_device(device)) {}

DeviceGuard::~DeviceGuard() {
  try {
    device::exchange_device(before_);
  } catch (const std::exception &) { // it was current before, and there is no one to tell
  }
}

} // namespace cuda
} // namespace lstm_fastkernels
