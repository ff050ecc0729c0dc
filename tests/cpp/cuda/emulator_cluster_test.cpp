// Blocks that run at the same time, on the emulator.
#include <algorithm>

#include "device.h"
#include "orders.h"
#include "support.h"

namespace lstm_fastkernels {
namespace device {
namespace {

constexpr uint64_t kOrders = 8;

struct Parameters {
  uint32_t *out = nullptr;
  uint64_t *packets = nullptr;
  Words4 *wide_packets = nullptr;
  int steps = 0;
};

void check_refused(void (*kernel)(Parameters), const Launch &shape, const char *part) {
  std::vector<uint64_t> packets(64);
  std::vector<uint32_t> words(64);
  for_each_order<kOrders>([&] {
    CHECK_THROWS(launch(kernel, shape, nullptr, Parameters{words.data(), packets.data()}), part);
  });
}

// Each step, warp 0 of a block sends its values to the next block of the cluster, by 4, 8 and 16
// bytes, and goes on with those that it gets: after as many steps as blocks they are back.
struct Ring {
  Mbarrier arrived[2]; // by parity of the step
  alignas(16) Words4 wide[2][32];
  uint64_t medium[2][32];
  uint32_t narrow[2][32];
};
constexpr int kRingBytes = 32 * (16 + 8 + 4);

template <bool wait> LFK_KERNEL(64, 1) ring_kernel(LFK_PARAMETERS(Parameters) p) {
  Ring &ring = *shared_memory<Ring>();
  if (thread_index() == 0) {
    ring.arrived[0].init(1);
    ring.arrived[1].init(1);
    fence_mbarrier_init();
  }
  cluster_sync();
  const int next = (cluster_rank() + 1) % cluster_size();
  const auto first = static_cast<uint32_t>(block_index().x * 32 + lane());
  uint32_t values[3] = {first, first * 2, first * 3};
  for (int step = 0; step < p.steps; ++step) {
    const int half = step % 2;
    if (thread_index() == 0)
      ring.arrived[half].arrive_expect_bytes(kRingBytes);
    if (warp() == 0) {
      const RemotePointer<Mbarrier> arrived = map_shared(ring.arrived, next) + half;
      store_async(map_shared(ring.wide[half], next) + lane(), Words4{{1, 2, 3, values[0]}},
                  arrived);
      store_async(map_shared(ring.medium[half], next) + lane(), uint64_t{values[1]} << 32, arrived);
      store_async(map_shared(ring.narrow[half], next) + lane(), values[2], arrived);
    }
    while (wait && !ring.arrived[half].try_wait(step / 2 % 2))
      pause();
    values[0] = ring.wide[half][lane()].words[3];
    values[1] = static_cast<uint32_t>(ring.medium[half][lane()] >> 32);
    values[2] = ring.narrow[half][lane()];
    cluster_sync(); // all have read this half
  }
  uint32_t *const out = p.out + (block_index().x * 64 + thread_index()) * 3;
  std::copy(values, values + 3, out);
}

template <bool wait> bool ring_is_right(bool cooperative = false) {
  constexpr int kBlocks = 8, kRanks = 4;
  std::vector<uint32_t> out(kBlocks * 64 * 3), expected;
  for (uint32_t block = 0; block < kBlocks; ++block)
    for (uint32_t thread = 0; thread < 64; ++thread)
      for (uint32_t i = 1; i <= 3; ++i)
        expected.push_back((block * 32 + thread % 32) * i);
  launch(ring_kernel<wait>, {{kBlocks}, 64, sizeof(Ring), kRanks, cooperative}, nullptr,
         Parameters{out.data(), nullptr, nullptr, kRanks});
  return out == expected;
}

TEST(blocks_of_a_cluster_talk) {
  for_each_order<kOrders>([] {
    CHECK(ring_is_right<true>());
    CHECK(ring_is_right<true>(true));
  });
}

TEST(a_missing_wait_shows) {
  emulator::set_order(0);
  bool found = false;
  try {
    found = !ring_is_right<false>();
  } catch (const Error &) { // or stores come to a block that has returned
    found = true;
  }
  CHECK(found);
}

// Mbarrier

LFK_KERNEL(64, 1) arrivals_kernel(LFK_PARAMETERS(Parameters) p) {
  Mbarrier &barrier = *shared_memory<Mbarrier>();
  if (thread_index() == 0)
    barrier.init(num_threads());
  sync_threads();
  uint32_t *const counts = p.out;
  for (int step = 0; step < 3; ++step) {
    ++counts[step];
    barrier.arrive();
    while (!barrier.try_wait(step % 2))
      pause();
    if (counts[step] != 64)
      counts[3] = 1;
    if (!barrier.try_wait(step % 2)) // as long as no other phase ends
      counts[3] = 2;
    sync_threads();
  }
}

TEST(threads_arrive_at_an_mbarrier) {
  for_each_order<kOrders>([] {
    std::vector<uint32_t> counts(4);
    launch(arrivals_kernel, {{}, 64, 8}, nullptr, Parameters{counts.data()});
    CHECK_SAME(counts, (std::vector<uint32_t>{64, 64, 64, 0}));
  });
}

LFK_KERNEL(32, 1) no_init(LFK_PARAMETERS(Parameters)) { shared_memory<Mbarrier>()->arrive(); }
LFK_KERNEL(32, 1) too_many_arrivals(LFK_PARAMETERS(Parameters)) {
  Mbarrier &barrier = *shared_memory<Mbarrier>();
  if (lane() > 0)
    return;
  barrier.init(1);
  barrier.arrive_expect_bytes(8);
  barrier.arrive();
}
LFK_KERNEL(32, 1) not_shared(LFK_PARAMETERS(Parameters)) { Mbarrier().init(1); }
LFK_KERNEL(32, 1) nobody_arrives(LFK_PARAMETERS(Parameters)) {
  Mbarrier &barrier = *shared_memory<Mbarrier>();
  if (lane() == 0)
    barrier.init(33);
  sync_warp();
  barrier.arrive();
  while (!barrier.try_wait(0))
    pause();
}

TEST(emulator_refuses_mbarriers) {
  check_refused(no_init, {{}, 32, 8}, "before its init");
  check_refused(too_many_arrivals, {{}, 32, 8}, "once more");
  check_refused(not_shared, {{}, 32, 8}, "outside its shared memory");
  check_refused(nobody_arrives, {{}, 32, 8}, "polls in vain");
}

// store_async

template <int rank, int offset> LFK_KERNEL(32, 1) stores(LFK_PARAMETERS(Parameters)) {
  Mbarrier *const barrier = shared_memory<Mbarrier>();
  if (lane() == 0)
    barrier->init(1);
  cluster_sync();
  if (lane() == 0 && cluster_rank() == 0) {
    const auto to = map_shared(shared_memory<uint32_t>() + 2, rank) + offset;
    store_async(to, 1u, map_shared(barrier, rank));
  }
}
LFK_KERNEL(32, 1) barrier_elsewhere(LFK_PARAMETERS(Parameters)) {
  store_async(map_shared(shared_memory<uint32_t>(), 1 - cluster_rank()), 1u,
              map_shared(shared_memory<Mbarrier>(), cluster_rank()));
}
LFK_KERNEL(32, 1) misses_cluster_sync(LFK_PARAMETERS(Parameters)) {
  if (cluster_rank() == 1 && lane() == 7)
    return;
  cluster_sync();
}

TEST(emulator_refuses_stores) {
  const Launch two = {{2}, 32, 16, 2};
  check_refused(stores<0, 0>, two, "to its own");
  check_refused(stores<2, 0>, two, "rank 2 of a cluster of 2");
  check_refused(stores<1, 2>, two, "where no shared memory");
  check_refused(barrier_elsewhere, two, "third block");
  check_refused(misses_cluster_sync, two, "cluster_sync");
}

TEST(emulator_refuses_stores_that_come_late) { // nobody waits for them
  emulator::set_order(0);
  CHECK_THROWS(launch(stores<1, 0>, {{2}, 32, 16, 2}, nullptr, Parameters{}), "has returned");
}

// Packets

// Each block waits for the number of its left neighbour, in both sizes, and passes it on, plus one.
LFK_KERNEL(32, 1) relay_kernel(LFK_PARAMETERS(Parameters) p) {
  const int block = block_index().x;
  uint64_t number = 1;
  if (block > 0) {
    while ((number = load_packet(p.packets + block * 32 + lane())) == 0)
      pause();
    Words4 wide = load_packet(p.wide_packets + block * 32 + lane());
    while (wide.words[0] == 0)
      wide = load_packet(p.wide_packets + block * 32 + lane());
    if (wide.words[3] != number)
      number = 1000;
  }
  const auto narrow = static_cast<uint32_t>(number + 1);
  store_packet(p.wide_packets + (block + 1) * 32 + lane(), Words4{{narrow, 0, 0, narrow}});
  store_packet(p.packets + (block + 1) * 32 + lane(), number + 1);
}

TEST(packets_cross_the_grid) {
  constexpr int kBlocks = 5;
  for_each_order<kOrders>([] {
    std::vector<uint64_t> packets((kBlocks + 1) * 32);
    std::vector<Words4> wide((kBlocks + 1) * 32);
    launch(relay_kernel, {{kBlocks}, 32, 0, 1, true}, nullptr,
           Parameters{nullptr, packets.data(), wide.data()});
    CHECK(std::count(packets.end() - 32, packets.end(), kBlocks + 1) == 32);
  });
}

TEST(blocks_that_wait_must_run_together) {
  std::vector<uint64_t> packets(3 * 32);
  std::vector<Words4> wide(3 * 32);
  const Parameters parameters{nullptr, packets.data(), wide.data()};
  emulator::set_order(1); // the last block first
  CHECK_THROWS(launch(relay_kernel, {{2}, 32}, nullptr, parameters), "polls in vain");
  emulator::set_order(0);
}

// Each lane of block 0 stores a packet and then a flag, a packet of its own or a release, for the
// same lane of block 1.
template <bool release> LFK_KERNEL(32, 1) flag_kernel(LFK_PARAMETERS(Parameters) p) {
  uint64_t *const packet = p.packets + lane(), *const flag = packet + 32;
  uint32_t *const released = p.out + lane(), *const got = released + 32;
  if (block_index().x == 0) {
    store_packet(packet, 7);
    if (release)
      store_release(released, 1);
    else
      store_packet(flag, 1);
    return;
  }
  while ((release ? load_acquire(released) : load_packet(flag)) == 0)
    pause();
  *got = static_cast<uint32_t>(load_packet(packet));
}

template <bool release> bool flags_are_right() {
  std::vector<uint64_t> packets(64);
  std::vector<uint32_t> out(64);
  launch(flag_kernel<release>, {{2}, 32, 0, 1, true}, nullptr,
         Parameters{out.data(), packets.data()});
  return std::count(out.begin() + 32, out.end(), 7u) == 32;
}

TEST(packets_have_no_order) {
  bool found = false;
  for_each_order<kOrders>([&] {
    CHECK(flags_are_right<true>());
    found |= !flags_are_right<false>();
  });
  CHECK(found);
}

LFK_KERNEL(32, 1) misaligned_packet(LFK_PARAMETERS(Parameters) p) {
  load_packet(
      reinterpret_cast<const uint64_t *>(p.out + 1 - reinterpret_cast<uintptr_t>(p.out) % 8 / 4));
}

TEST(emulator_refuses_packets) { check_refused(misaligned_packet, {{}, 32}, "misaligned packet"); }

LFK_KERNEL(32, 1) gives_up(LFK_PARAMETERS(Parameters) p) {
  const uint64_t start = global_timer_ns();
  while (load_acquire(p.out) == 0)
    if (global_timer_ns() - start > 2'000'000'000) {
      p.out[1 + lane()] = 1;
      return;
    }
}

TEST(time_outs_come) {
  for_each_order<kOrders>([] {
    std::vector<uint32_t> out(33);
    launch(gives_up, {{}, 32}, nullptr, Parameters{out.data()});
    CHECK(std::count(out.begin(), out.end(), 1u) == 32);
  });
}

} // namespace
} // namespace device
} // namespace lstm_fastkernels
