#include "emulator.h"

#include <algorithm>
#include <limits>

#include "check.h"
#include "machine.h"

namespace lstm_fastkernels {
namespace device {
namespace emulator {
namespace {

void multiply_warp(const Gate &threads, bool unsigned_b) {
  const Product *lanes[32];
  for (const Thread *thread : threads)
    lanes[thread->thread % 32] = static_cast<const Product *>(thread->operand);
  multiply(lanes, unsigned_b);
}

void reduce_warp(const Gate &threads) {
  int32_t largest = std::numeric_limits<int32_t>::min();
  for (const Thread *thread : threads)
    largest = std::max(largest, static_cast<const Largest *>(thread->operand)->value);
  for (const Thread *thread : threads)
    static_cast<Largest *>(thread->operand)->value = largest;
}

void vote_warp(const Gate &threads) {
  bool any = false;
  for (const Thread *thread : threads)
    any |= static_cast<const Vote *>(thread->operand)->value;
  for (const Thread *thread : threads)
    static_cast<Vote *>(thread->operand)->value = any;
}

[[gnu::noinline]] void finish(const Gate &gate) {
  switch (gate.point) {
  case Point::sync_threads:
  case Point::cluster_sync:
    return;
  case Point::mma_s8s8:
  case Point::mma_s8u8:
    return multiply_warp(gate, gate.point == Point::mma_s8u8);
  case Point::largest_of_lanes:
    return reduce_warp(gate);
  case Point::any_lane:
    return vote_warp(gate);
  }
}

// Out of line: under AddressSanitizer, temporaries on the stack cost their function time even where
// it does not come to them.
[[noreturn, gnu::noinline]] void refuse_while(const std::string &does, const Gate &gate) {
  refuse(check::text(does, " while ", place(**gate.begin()), " waits at ", name(gate.point)));
}
[[noreturn, gnu::noinline]] void refuse_arrival(const Thread &self, const Gate &gate, Point point) {
  const std::string comes = std::string("comes to ") + name(point);
  if (gate.returned == 0)
    refuse_while(comes, *self.warp_gate);
  refuse(check::text(comes, ", which ", gate.returned, " returned threads miss"));
}

void make(const Copy &copy) { std::memcpy(copy.to, copy.from, 16); }

void make_copies(Thread &self, int groups) {
  size_t made = 0;
  while (made < self.copies.size() && self.copies[made].group < groups)
    make(self.copies[made++]);
  self.copies.erase(self.copies.begin(), self.copies.begin() + static_cast<ptrdiff_t>(made));
}

} // namespace

const char *name(Point point) {
  constexpr const char *names[] = {"sync_threads", "cluster_sync",     "mma_s8s8",
                                   "mma_s8u8",     "largest_of_lanes", "any_lane"};
  return names[static_cast<int>(point)];
}

void meet(Point point, void *operand) {
  Thread &self = running();
  Gate &gate = point == Point::sync_threads   ? *self.block_gate
               : point == Point::cluster_sync ? *self.cluster_gate
                                              : *self.warp_gate;
  const Gate &warp = *self.warp_gate;
  const bool warp_is_elsewhere = !warp.empty() && (&warp != &gate || warp.point != point);
  if (warp_is_elsewhere || gate.returned > 0)
    refuse_arrival(self, gate, point);
  deliver_packets();
  gate.point = point;
  self.operand = operand;
  gate.add(self);
  if (!gate.full())
    return suspend();
  finish(gate);
  if (point != Point::any_lane) // by which warps poll together
    note_change();
  for (Thread *thread : gate)
    if (thread != &self)
      ready(*thread);
  gate.clear();
  if (order() == Order::random) { // or those who come last would always be first
    ready(self);
    suspend();
  }
}

void leave() {
  Thread &self = running();
  make_copies(self, self.groups + 1);
  for (Gate *gate : {self.warp_gate, self.block_gate, self.cluster_gate}) {
    if (!gate->empty())
      refuse_while("returns", *gate);
    ++gate->returned;
  }
}

void wait_copies(int most_pending) {
  Thread &self = running();
  make_copies(self, self.groups - most_pending);
}

} // namespace emulator

uint32_t permute_bytes(uint32_t low, uint32_t high, uint32_t selector) {
  const uint64_t bytes = static_cast<uint64_t>(high) << 32 | low;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t choice = selector >> 4 * i & 15;
    const auto byte = static_cast<uint8_t>(bytes >> 8 * (choice & 7));
    const bool sign_alone = choice & 8;
    const uint32_t picked = !sign_alone ? byte : byte & 0x80 ? 0xff : 0;
    result |= picked << 8 * i;
  }
  return result;
}

void copy_async_16(void *shared, const void *global) {
  using namespace emulator;
  Thread &self = running();
  const auto to = reinterpret_cast<uintptr_t>(shared), from = reinterpret_cast<uintptr_t>(global),
             start = reinterpret_cast<uintptr_t>(self.shared);
  if (to % 16 != 0 || from % 16 != 0)
    refuse("copies 16 bytes that are misaligned");
  if (to < start || to + 16 > start + self.shared_bytes)
    refuse("copies 16 bytes to where no shared memory of its block is");
  const Copy copy{shared, global, self.groups};
  if (order() == Order::deep || (order() == Order::random && toss()))
    make(copy);
  else
    self.copies.push_back(copy);
}

void commit_copies() { ++emulator::running().groups; }

Limits limits_of(int /*device*/) { return {132, 227 * 1024, true}; }

SharedWord allocate_shared_word(int device) {
  static uint32_t words[8] = {};
  return {&words[device], &words[device]};
}

} // namespace device
} // namespace lstm_fastkernels
