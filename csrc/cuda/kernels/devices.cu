#include "cuda/kernels/devices.h"

#include <exception>
#include <map>
#include <mutex>
#include <string>

#include "cuda/kernels/device.h"
#include "lstm_fastkernels/error.h"

namespace lstm_fastkernels {
namespace cuda {
namespace {

// Created on first use, and never moved.
struct Device {
  device::Limits limits;
  device::SharedWord failure;
};

Device &device_of(int index) {
  static std::mutex mutex;
  static std::map<int, Device> devices;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = devices.find(index);
  if (found != devices.end())
    return found->second;
  const Device made{device::limits_of(index), device::allocate_shared_word(index)};
  return devices.emplace(index, made).first->second;
}

} // namespace

DeviceGuard::DeviceGuard(int device) : before_(device::exchange_device(device)) {}

DeviceGuard::~DeviceGuard() {
  try {
    device::exchange_device(before_);
  } catch (const std::exception &) { // a destructor must not throw
  }
}

const device::Limits &limits_of(int device) { return device_of(device).limits; }

uint32_t *failure_word(int device) { return device_of(device).failure.device; }

void check_failure(int device) {
  volatile uint32_t &word = *device_of(device).failure.host;
  if (word == 0)
    return;
  word = 0;
  throw Error(ErrorCode::device, "an earlier LSTM call on CUDA device " + std::to_string(device) +
                                     " gave NaN: its blocks waited too long for each other");
}

} // namespace cuda
} // namespace lstm_fastkernels
