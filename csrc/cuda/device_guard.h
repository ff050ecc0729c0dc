// Makes a device the current one of this thread, for a scope. Throws Error where there is none.
#pragma once

namespace lstm_fastkernels {
namespace cuda {

class DeviceGuard {
public:
  explicit DeviceGuard(int device);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard &) = delete;
  DeviceGuard &operator=(const DeviceGuard &) = delete;

private:
  int before_;
};

} // namespace cuda
} // namespace lstm_fastkernels
