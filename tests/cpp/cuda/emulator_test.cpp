// The emulator of device.h: what kernels compute on it, and that it reports what a device would
// not.
#include <algorithm>
#include <numeric>

#include "cuda/kernels/device.h"
#include "orders.h"
#include "support.h"

namespace lstm_fastkernels {
namespace device {
namespace {

constexpr uint64_t kOrders = 6;

struct ProductParameters {
  const uint8_t *a, *b; // [warp][16][32] by row, [warp][8][32] by column
  int32_t *c;           // [warp][16][8]
  bool unsigned_b;
};

uint32_t four_bytes(const uint8_t *from) {
  return from[0] | from[1] << 8 | from[2] << 16 | static_cast<uint32_t>(from[3]) << 24;
}

// Fragments as the PTX manual lays them out, byte i of a thread's: group = lane / 4, its = lane % 4
//   a: row group + (i / 4 % 2) * 8, column its * 4 + i % 4 + i / 8 * 16
//   b: row its * 4 + i % 4 + i / 4 * 16, column group
//   c: row group + i / 2 * 8, column its * 2 + i % 2
LFK_KERNEL(64, 1) product_kernel(LFK_PARAMETERS(ProductParameters) p) {
  const uint8_t *a = p.a + warp() * 16 * 32, *b = p.b + warp() * 8 * 32;
  int32_t *c = p.c + warp() * 16 * 8;
  const int group = lane() / 4, its = lane() % 4;
  uint8_t a_bytes[16], b_bytes[8];
  for (int i = 0; i < 16; ++i)
    a_bytes[i] = a[(group + i / 4 % 2 * 8) * 32 + its * 4 + i % 4 + i / 8 * 16];
  for (int i = 0; i < 8; ++i)
    b_bytes[i] = b[group * 32 + its * 4 + i % 4 + i / 4 * 16];
  uint32_t a_words[4], b_words[2];
  LFK_UNROLLED (i, 4)
    a_words[i] = four_bytes(a_bytes + i * 4);
  LFK_UNROLLED (i, 2)
    b_words[i] = four_bytes(b_bytes + i * 4);
  int32_t sum[4];
  for (int i = 0; i < 4; ++i)
    sum[i] = c[(group + i / 2 * 8) * 8 + its * 2 + i % 2];
  if (p.unsigned_b)
    mma_s8u8(sum, a_words, b_words);
  else
    mma_s8s8(sum, a_words, b_words);
  for (int i = 0; i < 4; ++i)
    c[(group + i / 2 * 8) * 8 + its * 2 + i % 2] = sum[i];
}

TEST(emulated_products) {
  for_each_order<kOrders>([] {
    for (bool unsigned_b : {false, true}) {
      WITH("unsigned_b ", unsigned_b);
      constexpr int kWarps = 2;
      Random random(unsigned_b);
      std::vector<uint8_t> a(kWarps * 16 * 32), b(kWarps * 8 * 32);
      std::vector<int32_t> c(kWarps * 16 * 8); // anywhere: sums wrap around
      std::generate(a.begin(), a.end(), [&] { return static_cast<uint8_t>(random.bits()); });
      std::generate(b.begin(), b.end(), [&] { return static_cast<uint8_t>(random.bits()); });
      std::generate(c.begin(), c.end(), [&] { return static_cast<int32_t>(random.bits()); });
      std::fill_n(a.begin(), 32, 0x80); // the extremes
      std::fill_n(b.begin(), 32, unsigned_b ? 0xff : 0x80);
      c[0] = unsigned_b ? INT32_MIN : INT32_MAX;
      std::vector<int32_t> expected = c;
      for (int w = 0; w < kWarps; ++w)
        for (int m = 0; m < 16; ++m)
          for (int n = 0; n < 8; ++n) {
            int64_t sum = expected[static_cast<size_t>((w * 16 + m) * 8 + n)];
            for (int k = 0; k < 32; ++k) {
              const uint8_t x = a[static_cast<size_t>((w * 16 + m) * 32 + k)];
              const uint8_t y = b[static_cast<size_t>((w * 8 + n) * 32 + k)];
              sum += static_cast<int8_t>(x) * (unsigned_b ? y : static_cast<int8_t>(y));
            }
            expected[static_cast<size_t>((w * 16 + m) * 8 + n)] = static_cast<int32_t>(sum);
          }
      launch(product_kernel, {{}, kWarps * 32}, nullptr,
             ProductParameters{a.data(), b.data(), c.data(), unsigned_b});
      CHECK_SAME(c, expected);
    }
  });
}

struct LargestParameters {
  const int32_t *in;
  int32_t *out; // the largest of each block's
};

// Through registers, then shared memory.
constexpr int kLargestThreads = 128, kLargestBlocks = 3; // blocks: of a row

template <bool barrier>
LFK_KERNEL(kLargestThreads, 1)
largest_kernel(LFK_PARAMETERS(LargestParameters) p) {
  int32_t *const of_warps = shared_memory<int32_t>();
  const int block = block_index().y * kLargestBlocks + block_index().x;
  int32_t largest = largest_of_lanes(p.in[block * kLargestThreads + thread_index()]);
  if (lane() == 0)
    of_warps[warp()] = largest;
  if (barrier)
    sync_threads();
  if (thread_index() != 0)
    return;
  for (int w = 1; w < kLargestThreads / 32; ++w)
    largest = std::max(largest, of_warps[w]);
  p.out[block] = largest;
}

template <bool barrier> bool largest_are_right() {
  constexpr int kThreads = kLargestThreads, kBlocks = 2 * kLargestBlocks;
  std::vector<int32_t> in(kThreads * kBlocks), out(kBlocks, -1), expected(kBlocks);
  std::iota(in.begin(), in.end(), -100);
  for (int i = 0; i < kBlocks; ++i)
    expected[static_cast<size_t>(i)] = (i + 1) * kThreads - 101;
  launch(largest_kernel<barrier>, {{kLargestBlocks, 2}, kThreads, kThreads / 32 * sizeof(int32_t)},
         nullptr, LargestParameters{in.data(), out.data()});
  return out == expected;
}

TEST(emulated_largest) {
  for_each_order<kOrders>([] { CHECK(largest_are_right<true>()); });
}

TEST(orders_find_a_missing_barrier) {
  bool found = false;
  for_each_order<kOrders>([&] { found |= !largest_are_right<false>(); });
  CHECK(found);
}

struct WordParameters {
  uint32_t *out;
};

LFK_KERNEL(64, 1) vote_kernel(LFK_PARAMETERS(WordParameters) p) {
  const bool one = any_lane(thread_index() == 37), none = any_lane(false);
  p.out[thread_index()] = static_cast<uint32_t>(one * 2 + none);
}

TEST(emulated_votes) {
  for_each_order<kOrders>([] {
    std::vector<uint32_t> out(64), expected(64);
    for (uint32_t i = 0; i < 64; ++i)
      expected[i] = (i >= 32) * 2;
    launch(vote_kernel, {{}, 64}, nullptr, WordParameters{out.data()});
    CHECK_SAME(out, expected);
  });
}

TEST(emulated_permutations) {
  CHECK(permute_bytes(0x33221100, 0x77665544, 0x3210) == 0x33221100);
  CHECK(permute_bytes(0x33221100, 0x77665544, 0x0246) == 0x00224466);
  CHECK(permute_bytes(0x33221100, 0x77665544, 0x7531) == 0x77553311);
  CHECK(permute_bytes(0x80007f80, 0x00ff0001, 0x8b9e) == 0xffff00ff); // signs
}

// 16 bytes a thread by two groups of copies, read after waiting for the first.
template <bool wait> LFK_KERNEL(32, 1) copy_kernel(LFK_PARAMETERS(ProductParameters) p) {
  unsigned char *const first = shared_memory<unsigned char>() + thread_index() * 16;
  unsigned char *const second = first + 32 * 16;
  copy_async_16(first, p.a + thread_index() * 16);
  commit_copies();
  copy_async_16(second, p.b + thread_index() * 16);
  commit_copies();
  if (wait)
    wait_copies<1>();
  p.c[thread_index()] = first[0] | second[0] << 8;
}

std::vector<int32_t> first_bytes(void (*kernel)(ProductParameters)) {
  std::vector<uint8_t> ones(512 + 16, 1), twos(512 + 16, 2);
  const auto aligned = [](std::vector<uint8_t> &v) {
    return v.data() + (16 - reinterpret_cast<uintptr_t>(v.data()) % 16) % 16;
  };
  std::vector<int32_t> out(32);
  launch(kernel, {{}, 32, 1024}, nullptr,
         ProductParameters{aligned(ones), aligned(twos), out.data(), false});
  return out;
}

TEST(copies_are_late) {
  constexpr int kUnwritten = emulator::kUnwritten;
  emulator::set_order(2);
  CHECK_SAME(first_bytes(copy_kernel<false>), std::vector<int32_t>(32, 0x0201));
  emulator::set_order(3);
  const std::vector<int32_t> either = first_bytes(copy_kernel<true>);
  CHECK(std::count(either.begin(), either.end(), kUnwritten << 8 | 1) > 0);
  CHECK(std::count(either.begin(), either.end(), 0x0201) > 0);
  emulator::set_order(0);
  CHECK_SAME(first_bytes(copy_kernel<true>), std::vector<int32_t>(32, kUnwritten << 8 | 1));
  CHECK_SAME(first_bytes(copy_kernel<false>),
             std::vector<int32_t>(32, kUnwritten << 8 | kUnwritten));
}

} // namespace
} // namespace device
} // namespace lstm_fastkernels
