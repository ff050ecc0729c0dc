#include "cuda/kernels/persistent.h"

#include <map>
#include <mutex>
#include <tuple>

#include "common/rounding.h"
#include "cuda/kernels/persistent_instances.h"
#include "cuda/kernels/persistent_shared.h"

namespace lstm_fastkernels {
namespace cuda {
namespace {

PersistentKernel instance(const PersistentShape &shape) {
  return shape.arithmetic == Arithmetic::signed16 ? int16_instance(shape) : int8_instance(shape);
}

device::Launch launch_of(const PersistentShape &shape, const DeviceMatrix &hh, int count) {
  device::Launch launch;
  launch.grid = {shape.grid, 1, count};
  launch.threads = kPersistentThreads;
  launch.shared_bytes = shared_bytes(shape, hh);
  if (shape.cluster)
    launch.cluster = shape.grid;
  else
    launch.cooperative = true;
  return launch;
}

} // namespace

size_t shared_bytes(const PersistentShape &shape, const DeviceMatrix &hh) {
  const int blocks = static_cast<int>(divide_up(hh.num_tiles, shape.tiles));
  const SharedLayout layout({shape.rows, hh.num_columns, shape.tiles, blocks, shape.cluster});
  return static_cast<size_t>(layout.bytes);
}

int most_at_once(const PersistentShape &shape, const DeviceMatrix &hh, int device) {
  const PersistentKernel kernel = instance(shape);
  const device::Launch launch = launch_of(shape, hh, 1);
  static std::mutex mutex;
  static std::map<std::tuple<int, PersistentKernel, size_t, int>, int> known;
  const std::lock_guard<std::mutex> lock(mutex);
  const std::tuple key(device, kernel, launch.shared_bytes, launch.cluster);
  auto found = known.find(key);
  if (found == known.end())
    found = known.emplace(key, device::most_at_once(kernel, launch, device)).first;
  return found->second;
}

int64_t range_packets(const DeviceMatrix &hh, int rows) {
  return int64_t{2} * hh.num_tiles * block_packets(rows);
}

void run_persistent(const PersistentShape &shape, const SideBySide<PersistentArguments> &all,
                    void *stream) {
  device::launch(instance(shape), launch_of(shape, all.of[0].hh, all.count), stream, all);
}

} // namespace cuda
} // namespace lstm_fastkernels
