#include "cluster.h"

#include <algorithm>
#include <cstring>

#include "check.h"
#include "machine.h"

namespace lstm_fastkernels {
namespace device {
namespace emulator {
namespace {

constexpr uint16_t kMark = 0x6ba2;

struct Delivery {
  const Thread *from;
  void *to;
  Words4 value;
  Mbarrier *barrier; // null: a packet
  const Gate *block; // where the barrier is
  int64_t turn;      // when it is due, unless the order is random
};

std::vector<Delivery> deliveries; // those to the same place arrive in their order
int64_t lost = 0;                 // stores until the one that is lost; 0: none is

void deliver(size_t i) {
  const void *const to = deliveries[i].to;
  const auto first = std::find_if(deliveries.begin(), deliveries.end(),
                                  [&](const Delivery &other) { return other.to == to; });
  const Delivery delivery = *first;
  deliveries.erase(first);
  if (delivery.block && delivery.block->deserted())
    throw Error(ErrorCode::device, place(*delivery.from) + " stores to a block that has returned");
  std::memcpy(delivery.to, &delivery.value, sizeof delivery.value);
  if (delivery.barrier)
    delivery.barrier->complete_bytes(sizeof delivery.value);
  note_change();
}

void store_late(void *to, const Words4 &value, Mbarrier *barrier, const Gate *block) {
  if (lost > 0 && --lost == 0)
    return;
  const int64_t delay = order() == Order::deep ? 0 : 2 * alive();
  deliveries.push_back({&running(), to, value, barrier, block, turn() + delay});
}

bool is_shared(const unsigned char *shared, const void *at, size_t bytes) {
  const auto start = reinterpret_cast<uintptr_t>(shared), from = reinterpret_cast<uintptr_t>(at);
  return from >= start && from + bytes <= start + running().shared_bytes;
}

void check_remote(const RemoteAddress &at, size_t bytes) {
  if (!at.address || !is_shared(running().cluster_shared[at.rank], at.address, bytes))
    refuse("stores to where no shared memory of the other block is");
  if (reinterpret_cast<uintptr_t>(at.address) % bytes != 0)
    refuse("stores to a misaligned place of another block");
}

void check_packet(const Words4 *at) {
  if (reinterpret_cast<uintptr_t>(at) % sizeof *at != 0)
    refuse("stores or loads a misaligned packet");
}

} // namespace

void deliver_due() {
  if (deliveries.empty())
    return;
  if (order() != Order::random)
    while (!deliveries.empty() && deliveries.front().turn <= turn())
      deliver(0);
  else if (random_below(4) == 0)
    deliver(random_below(deliveries.size()));
}

void deliver_all() {
  while (!deliveries.empty())
    deliver(0);
}

void deliver_packets() {
  for (size_t i = 0; i < deliveries.size();)
    if (!deliveries[i].barrier && deliveries[i].from == &running())
      deliver(i), i = 0;
    else
      ++i;
}

void lose_store(int64_t nth) { lost = nth; }

void drop_deliveries() { deliveries.clear(); }

RemoteAddress map(void *own, size_t bytes, int rank) {
  const Thread &self = running();
  if (rank < 0 || rank >= self.ranks)
    refuse(check::text("maps to rank ", rank, " of a cluster of ", self.ranks));
  if (!is_shared(self.shared, own, bytes))
    refuse("maps what is not in its shared memory");
  return {self.cluster_shared[rank] + (static_cast<unsigned char *>(own) - self.shared), rank};
}

} // namespace emulator

using namespace emulator;

void Mbarrier::check_own() const {
  if (!is_shared(running().shared, this, sizeof *this))
    refuse("uses an Mbarrier outside its shared memory");
  if (reinterpret_cast<uintptr_t>(this) % sizeof *this != 0)
    refuse("uses a misaligned Mbarrier");
}

void Mbarrier::check_ready() const {
  check_own();
  if (mark_ != kMark)
    refuse("uses an Mbarrier before its init");
}

void Mbarrier::init(int arrivals) {
  check_own();
  if (arrivals < 1 || arrivals > 1024)
    refuse("inits an Mbarrier for less than 1 or more than 1024 arrivals");
  mark_ = kMark;
  parity_ = 0;
  arrivals_ = static_cast<uint16_t>(arrivals) & 0x7ff;
  pending_ = arrivals;
  bytes_ = 0;
}

void Mbarrier::end_phase() {
  note_change();
  if (pending_ > 0 || bytes_ != 0)
    return;
  parity_ ^= 1;
  pending_ = arrivals_;
}

void Mbarrier::arrive_expect_bytes(int bytes) {
  check_ready();
  if (bytes < 0 || bytes_ + bytes > 0x7ffff)
    refuse("expects more bytes than an Mbarrier counts");
  if (pending_ == 0)
    refuse("arrives at an Mbarrier once more than a phase has arrivals");
  deliver_packets();
  bytes_ += bytes;
  --pending_;
  end_phase();
}

void Mbarrier::complete_bytes(int bytes) {
  if (mark_ != kMark)
    throw Error(ErrorCode::device, "a store to another block comes before its Mbarrier's init");
  bytes_ -= bytes;
  end_phase();
}

bool Mbarrier::try_wait(int parity) {
  check_ready();
  if (parity_ != static_cast<unsigned>(parity))
    return true;
  poll();
  return parity_ != static_cast<unsigned>(parity);
}

void store_async(RemotePointer<Words4> to, const Words4 &value, RemotePointer<Mbarrier> barrier) {
  const RemoteAddress &at = to.address(), &counter = barrier.address();
  if (running().ranks < 2)
    refuse("stores in a cluster of one block");
  check_remote(at, sizeof value);
  check_remote(counter, sizeof(Mbarrier));
  if (at.rank != counter.rank)
    refuse("stores with a barrier of a third block");
  const Gate &block = running().cluster_blocks[at.rank];
  if (block.deserted())
    refuse("stores to a block that has returned");
  store_late(at.address, value, reinterpret_cast<Mbarrier *>(counter.address), &block);
}

void store_packet(Words4 *to, const Words4 &value) {
  check_packet(to);
  static_cast<void>(Words4(*to)); // AddressSanitizer sees it here
  store_late(to, value, nullptr, nullptr);
  note_change();
}

Words4 load_packet(const Words4 *from) {
  check_packet(from);
  for (size_t i = 0; i < deliveries.size();) // its own come before it
    if (deliveries[i].to == from && deliveries[i].from == &running())
      deliver(i), i = 0;
    else
      ++i;
  const Words4 value = *from;
  poll();
  return value;
}

void pause() { poll(); }

uint64_t global_timer_ns() { return advance_clock(); }

} // namespace device
} // namespace lstm_fastkernels
