// Blocks that run at the same time, on the emulator.
#include <algorithm>

#include "cuda/kernels/device.h"
#include "orders.h"
#include "support.h"

namespace lstm_fastkernels {
namespace device {
namespace {

constexpr uint64_t kOrders = 8;

struct Parameters {
  uint32_t *out = nullptr;
  Words4 *packets = nullptr;
};

void check_refused(void (*kernel)(Parameters), const Launch &shape, const char *part) {
  std::vector<Words4> packets(64);
  std::vector<uint32_t> words(64);
  for_each_order<kOrders>([&] {
    CHECK_THROWS(launch(kernel, shape, nullptr, Parameters{words.data(), packets.data()}), part);
  });
}

// Each step, warp 0 of a block sends its values to the next block of the cluster and goes on with
// those that it gets: after as many steps as blocks they are back. One value stays, by way of the
// block's own barrier.
constexpr int kRingRanks = 4;
struct Ring {
  Mbarrier arrived[2]; // by parity of the step
  alignas(16) Words4 values[2][2][32];
};

template <bool wait> LFK_KERNEL(64, 1) ring_kernel(LFK_PARAMETERS(Parameters) p) {
  Ring &ring = *shared_memory<Ring>();
  if (thread_index() == 0) {
    ring.arrived[0].init(1);
    ring.arrived[1].init(1);
    fence_mbarrier_init();
  }
  cluster_sync();
  const int rank = block_index().x % kRingRanks, next = (rank + 1) % kRingRanks;
  const auto first = static_cast<uint32_t>(block_index().x * 32 + lane());
  uint32_t travels = first, stays = first * 2;
  for (int step = 0; step < kRingRanks; ++step) {
    const int half = step % 2;
    if (thread_index() == 0)
      ring.arrived[half].arrive_expect_bytes(2 * 32 * sizeof(Words4));
    if (warp() == 0) {
      store_async(map_shared(&ring.values[half][0][lane()], next), Words4{{1, 2, 3, travels}},
                  map_shared(&ring.arrived[half], next));
      store_async(map_shared(&ring.values[half][1][lane()], rank), Words4{{stays, 2, 3, 4}},
                  map_shared(&ring.arrived[half], rank));
    }
    while (wait && !ring.arrived[half].try_wait(step / 2 % 2))
      pause();
    travels = ring.values[half][0][lane()].words[3];
    stays = ring.values[half][1][lane()].words[0];
    cluster_sync(); // all have read this half
  }
  uint32_t *const out = p.out + (block_index().x * 64 + thread_index()) * 2;
  out[0] = travels;
  out[1] = stays;
}

template <bool wait> bool ring_is_right(bool cooperative = false) {
  constexpr int kBlocks = 2 * kRingRanks;
  std::vector<uint32_t> out(kBlocks * 64 * 2), expected;
  for (uint32_t block = 0; block < kBlocks; ++block)
    for (uint32_t thread = 0; thread < 64; ++thread)
      for (uint32_t i = 1; i <= 2; ++i)
        expected.push_back((block * 32 + thread % 32) * i);
  launch(ring_kernel<wait>, {{kBlocks}, 64, sizeof(Ring), kRingRanks, cooperative}, nullptr,
         Parameters{out.data()});
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
    barrier.init(64);
  sync_threads();
  uint32_t *const counts = p.out;
  for (int step = 0; step < 3; ++step) {
    ++counts[step];
    barrier.arrive_expect_bytes(0);
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

LFK_KERNEL(32, 1) no_init(LFK_PARAMETERS(Parameters)) {
  shared_memory<Mbarrier>()->arrive_expect_bytes(0);
}
LFK_KERNEL(32, 1) too_many_arrivals(LFK_PARAMETERS(Parameters)) {
  Mbarrier &barrier = *shared_memory<Mbarrier>();
  if (lane() > 0)
    return;
  barrier.init(1);
  barrier.arrive_expect_bytes(8);
  barrier.arrive_expect_bytes(0);
}
LFK_KERNEL(32, 1) not_shared(LFK_PARAMETERS(Parameters)) { Mbarrier().init(1); }
LFK_KERNEL(32, 1) nobody_arrives(LFK_PARAMETERS(Parameters)) {
  Mbarrier &barrier = *shared_memory<Mbarrier>();
  if (lane() == 0)
    barrier.init(33);
  sync_threads();
  barrier.arrive_expect_bytes(0);
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
  if (lane() == 0 && block_index().x == 0) {
    Words4 *const to = reinterpret_cast<Words4 *>(shared_memory<uint8_t>() + offset);
    store_async(map_shared(to, rank), Words4{}, map_shared(barrier, rank));
  }
}
LFK_KERNEL(32, 1) barrier_elsewhere(LFK_PARAMETERS(Parameters)) {
  const int rank = block_index().x;
  store_async(map_shared(shared_memory<Words4>(), 1 - rank), Words4{},
              map_shared(shared_memory<Mbarrier>(), rank));
}
LFK_KERNEL(32, 1) misses_cluster_sync(LFK_PARAMETERS(Parameters)) {
  if (block_index().x == 1 && lane() == 7)
    return;
  cluster_sync();
}

TEST(emulator_refuses_stores) {
  const Launch two = {{2}, 32, 32, 2};
  check_refused(stores<2, 16>, two, "rank 2 of a cluster of 2");
  check_refused(stores<1, 32>, two, "not in its shared memory");
  check_refused(stores<1, 8>, two, "misaligned");
  check_refused(barrier_elsewhere, two, "third block");
  check_refused(stores<0, 16>, {{1}, 32, 32}, "cluster of one block");
  check_refused(misses_cluster_sync, two, "cluster_sync");
}

TEST(emulator_refuses_stores_that_come_late) { // nobody waits for them
  emulator::set_order(0);
  CHECK_THROWS(launch(stores<1, 16>, {{2}, 32, 32, 2}, nullptr, Parameters{}), "has returned");
}

// Packets

// Each block waits for the number of its left neighbour and passes it on, plus one.
LFK_KERNEL(32, 1) relay_kernel(LFK_PARAMETERS(Parameters) p) {
  const int block = block_index().x;
  uint32_t number = 1;
  if (block > 0) {
    Words4 packet;
    while ((packet = load_packet(p.packets + block * 32 + lane())).words[0] == 0)
      pause();
    number = packet.words[3] == packet.words[0] ? packet.words[0] : 1000;
  }
  store_packet(p.packets + (block + 1) * 32 + lane(), Words4{{number + 1, 0, 0, number + 1}});
}

TEST(packets_cross_the_grid) {
  constexpr int kBlocks = 5;
  for_each_order<kOrders>([] {
    std::vector<Words4> packets((kBlocks + 1) * 32);
    launch(relay_kernel, {{kBlocks}, 32, 0, 1, true}, nullptr, Parameters{nullptr, packets.data()});
    CHECK(std::count_if(packets.end() - 32, packets.end(),
                        [](const Words4 &p) { return p.words[0] == kBlocks + 1; }) == 32);
  });
}

TEST(blocks_that_wait_must_run_together) {
  std::vector<Words4> packets(3 * 32);
  const Parameters parameters{nullptr, packets.data()};
  emulator::set_order(1); // the last block first
  CHECK_THROWS(launch(relay_kernel, {{2}, 32}, nullptr, parameters), "polls in vain");
  emulator::set_order(0);
}

// Each lane of block 0 stores a packet and then another as a flag, for the same lane of block 1.
LFK_KERNEL(32, 1) flag_kernel(LFK_PARAMETERS(Parameters) p) {
  Words4 *const packet = p.packets + lane(), *const flag = packet + 32;
  if (block_index().x == 0) {
    store_packet(packet, Words4{{7, 0, 0, 0}});
    store_packet(flag, Words4{{1, 0, 0, 0}});
    return;
  }
  while (load_packet(flag).words[0] == 0)
    pause();
  p.out[lane()] = load_packet(packet).words[0];
}

TEST(packets_have_no_order) {
  bool found = false;
  for_each_order<kOrders>([&] {
    std::vector<Words4> packets(64);
    std::vector<uint32_t> out(32);
    launch(flag_kernel, {{2}, 32, 0, 1, true}, nullptr, Parameters{out.data(), packets.data()});
    found |= std::count(out.begin(), out.end(), 7u) < 32;
  });
  CHECK(found);
}

LFK_KERNEL(32, 1) misaligned_packet(LFK_PARAMETERS(Parameters) p) {
  load_packet(reinterpret_cast<const Words4 *>(p.out + 1));
}

TEST(emulator_refuses_packets) { check_refused(misaligned_packet, {{}, 32}, "misaligned packet"); }

LFK_KERNEL(32, 1) gives_up(LFK_PARAMETERS(Parameters) p) {
  const uint64_t start = global_timer_ns();
  while (load_packet(p.packets).words[0] == 0)
    if (global_timer_ns() - start > 2'000'000'000) {
      p.out[1 + lane()] = 1;
      return;
    }
}

TEST(time_outs_come) {
  for_each_order<kOrders>([] {
    std::vector<uint32_t> out(33);
    std::vector<Words4> packets(1);
    launch(gives_up, {{}, 32}, nullptr, Parameters{out.data(), packets.data()});
    CHECK(std::count(out.begin(), out.end(), 1u) == 32);
  });
}

} // namespace
} // namespace device
} // namespace lstm_fastkernels
