// device.h on the CPU: what kernels use that talk across blocks. What they store this way arrives
// later, and not in the order in which it was stored.
#pragma once

#include <type_traits>

#include "emulator.h"

namespace lstm_fastkernels {
namespace device {
namespace emulator {

struct RemoteAddress {
  unsigned char *address = nullptr;
  int rank = 0;
};
RemoteAddress map(void *own, size_t bytes, int rank);

} // namespace emulator

inline void cluster_sync() { emulator::meet(emulator::Point::cluster_sync); }

template <class T> class RemotePointer {
public:
  explicit RemotePointer(const emulator::RemoteAddress &at) : at_(at) {}
  const emulator::RemoteAddress &address() const { return at_; }

private:
  emulator::RemoteAddress at_;
};

template <class T> RemotePointer<T> map_shared(T *own, int rank) {
  return RemotePointer<T>(emulator::map(own, sizeof(T), rank));
}

class Mbarrier {
public:
  void init(int arrivals);
  void arrive_expect_bytes(int bytes);
  bool try_wait(int parity);

  void complete_bytes(int bytes); // the emulator's own

private:
  void check_own() const;
  void check_ready() const;
  void end_phase();

  uint16_t mark_; // of one that is initialized
  uint16_t parity_ : 1, arrivals_ : 11;
  int32_t pending_ : 12; // arrivals
  int32_t bytes_ : 20;   // that are expected; negative where they come first
};
static_assert(sizeof(Mbarrier) == 8 && std::is_trivial_v<Mbarrier>);

inline void fence_mbarrier_init() {}

void store_async(RemotePointer<Words4> to, const Words4 &value, RemotePointer<Mbarrier> barrier);

void store_packet(Words4 *to, const Words4 &value);
Words4 load_packet(const Words4 *from);

void pause();
uint64_t global_timer_ns();

} // namespace device
} // namespace lstm_fastkernels
