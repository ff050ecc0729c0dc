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
void store_async(const RemoteAddress &to, const void *value, size_t bytes,
                 const RemoteAddress &barrier);
void store_packet(void *to, const void *value, size_t bytes);
void load_packet(const void *from, void *value, size_t bytes);

} // namespace emulator

inline int cluster_rank() { return emulator::here->rank; }
inline int cluster_size() { return emulator::here->ranks; }
inline void cluster_sync() { emulator::meet(emulator::Point::cluster_sync); }

template <class T> class RemotePointer {
public:
  RemotePointer() = default;
  explicit RemotePointer(const emulator::RemoteAddress &at) : at_(at) {}
  RemotePointer operator+(int n) const {
    return RemotePointer({at_.address + n * static_cast<ptrdiff_t>(sizeof(T)), at_.rank});
  }
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
  void arrive();
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

inline void store_async(RemotePointer<uint32_t> to, uint32_t value,
                        RemotePointer<Mbarrier> barrier) {
  emulator::store_async(to.address(), &value, sizeof value, barrier.address());
}
inline void store_async(RemotePointer<uint64_t> to, uint64_t value,
                        RemotePointer<Mbarrier> barrier) {
  emulator::store_async(to.address(), &value, sizeof value, barrier.address());
}
inline void store_async(RemotePointer<Words4> to, const Words4 &value,
                        RemotePointer<Mbarrier> barrier) {
  emulator::store_async(to.address(), &value, sizeof value, barrier.address());
}

inline void store_packet(uint64_t *to, uint64_t value) {
  emulator::store_packet(to, &value, sizeof value);
}
inline void store_packet(Words4 *to, const Words4 &value) {
  emulator::store_packet(to, &value, sizeof value);
}
inline uint64_t load_packet(const uint64_t *from) {
  uint64_t value;
  emulator::load_packet(from, &value, sizeof value);
  return value;
}
inline Words4 load_packet(const Words4 *from) {
  Words4 value;
  emulator::load_packet(from, &value, sizeof value);
  return value;
}

uint32_t load_acquire(const uint32_t *from);
void store_release(uint32_t *to, uint32_t value);

void pause();
uint64_t global_timer_ns();

} // namespace device
} // namespace lstm_fastkernels
