// What decides the design of a persistent LSTM kernel: how long launches, barriers, exchanges and
// products take. Needs compute capability 9.0.
//
//     nvcc -O3 -std=c++17 -arch=sm_90 latencies.cu -o latencies && ./latencies
//
// Prints a line of JSON for each figure, when it is there; with --list the names of its parts. A
// figure is the median of REPEATS. Where it is nanoseconds a round, it is the difference between
// a long and a short run, so that launches cancel out. Every wait of the kernels gives up at a
// deadline; a figure whose kernel gave up, or received what was not sent, is null.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include <cooperative_groups.h>
#include <cuda_runtime.h>

#include "measuring.h"

namespace {

constexpr int REPEATS = 9;
constexpr int SHORT = 200, LONG = 2200;   // rounds
constexpr long long DEADLINE = 1ll << 30; // cycles of a kernel, about half a second

// Device memory, filled with bytes that are not zero.
template <class T> class Buffer {
public:
  explicit Buffer(size_t count) : bytes_(count * sizeof(T)) {
    CHECK(cudaMalloc(&data_, bytes_));
    std::vector<uint8_t> random(bytes_);
    uint32_t state = 1;
    for (uint8_t &byte : random)
      byte = static_cast<uint8_t>((state = state * 1664525 + 1013904223) >> 24);
    CHECK(cudaMemcpy(data_, random.data(), bytes_, cudaMemcpyHostToDevice));
  }
  Buffer(const Buffer &) = delete;
  ~Buffer() { cudaFree(data_); }

  T *get() const { return data_; }
  void clear() { CHECK(cudaMemset(data_, 0, bytes_)); }
  T first() const {
    T value;
    CHECK(cudaMemcpy(&value, data_, sizeof(T), cudaMemcpyDeviceToHost));
    return value;
  }

private:
  size_t bytes_;
  T *data_ = nullptr;
};

// How a kernel tells that it gave up (1) or received what was not sent (2).
Buffer<int> &fault() {
  static Buffer<int> flag(1);
  return flag;
}

// Nanoseconds for a round of a kernel that `launch(rounds)` starts; NaN if it failed.
double round_time(const std::function<void(int)> &launch) {
  fault().clear();
  launch(SHORT);
  CHECK(cudaGetLastError());
  std::vector<double> times;
  for (int i = 0; i < REPEATS && !fault().first(); ++i) {
    const double brief = elapsed(nullptr, [&] { launch(SHORT); });
    const double full = elapsed(nullptr, [&] { launch(LONG); });
    times.push_back((full - brief) / (LONG - SHORT));
  }
  return fault().first() ? NAN : median(times);
}

bool all_measured = true;

void report(const std::string &name, const std::string &sizes, double value, const char *unit) {
  char text[32] = "null";
  if (std::isfinite(value))
    std::snprintf(text, sizeof text, "%.6g", value);
  else
    all_measured = false;
  std::printf("{\"figure\": \"%s\", \"sizes\": \"%s\", \"value\": %s, \"unit\": \"%s\"}\n",
              name.c_str(), sizes.c_str(), text, unit);
  std::fflush(stdout);
}

// Launches

struct Shape {
  int blocks, threads;
  int cluster = 1;
  size_t shared_bytes = 0;
  bool cooperative = false, programmatic = false;
};

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const Shape &shape, cudaStream_t stream,
            Arguments... arguments) {
  cudaLaunchAttribute attributes[3] = {};
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.blocks;
  config.blockDim = shape.threads;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  if (shape.cluster > 1) {
    cudaLaunchAttribute &attribute = attributes[config.numAttrs++];
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = shape.cluster;
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  }
  if (shape.cooperative) {
    cudaLaunchAttribute &attribute = attributes[config.numAttrs++];
    attribute.id = cudaLaunchAttributeCooperative;
    attribute.val.cooperative = 1;
  }
  if (shape.programmatic) {
    cudaLaunchAttribute &attribute = attributes[config.numAttrs++];
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
  }
  CHECK(cudaLaunchKernelEx(&config, kernel, arguments...));
}

__global__ void empty_kernel() {}

__global__ void dependent_kernel() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

void measure_launches(int multiprocessors) {
  constexpr int LAUNCHES = 1000;
  cudaStream_t stream;
  CHECK(cudaStreamCreate(&stream));
  for (int blocks : {1, multiprocessors})
    for (bool programmatic : {false, true}) {
      Shape shape{blocks, 256};
      shape.programmatic = programmatic;
      const auto launch_all = [&] {
        for (int i = 0; i < LAUNCHES; ++i)
          launch(programmatic ? dependent_kernel : empty_kernel, shape, stream);
      };
      cudaGraph_t graph;
      cudaGraphExec_t executable;
      CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
      launch_all();
      CHECK(cudaStreamEndCapture(stream, &graph));
      CHECK(cudaGraphInstantiate(&executable, graph, 0));
      const auto replay = [&] { CHECK(cudaGraphLaunch(executable, stream)); };
      const std::string how = programmatic ? ", programmatic" : "";
      for (bool in_graph : {false, true}) {
        const std::function<void()> work = in_graph ? std::function<void()>(replay) : launch_all;
        elapsed(stream, work);
        std::vector<double> times;
        for (int i = 0; i < REPEATS; ++i)
          times.push_back(elapsed(stream, work) / LAUNCHES);
        report((in_graph ? "launch in a graph" : "launch in a stream") + how,
               std::to_string(blocks) + " blocks", median(times), "ns");
      }
      CHECK(cudaGraphExecDestroy(executable));
      CHECK(cudaGraphDestroy(graph));
    }
  CHECK(cudaStreamDestroy(stream));
}

// Barriers: by hardware or by the runtime's own code, on blocks that all run. They have no
// deadline.

__global__ void grid_barrier(int rounds) {
  for (int i = 0; i < rounds; ++i)
    cooperative_groups::this_grid().sync();
}

__device__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release.aligned;\n\t"
               "barrier.cluster.wait.acquire.aligned;" ::
                   : "memory");
}

__global__ void cluster_barrier(int rounds) {
  for (int i = 0; i < rounds; ++i)
    cluster_sync();
}

template <class... Parameters> bool cluster_fits(void (*kernel)(Parameters...), int cluster) {
  if (cluster > 8)
    CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = cluster;
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = cluster;
  config.blockDim = 256;
  config.attrs = &attribute;
  config.numAttrs = 1;
  int clusters = 0;
  return cudaOccupancyMaxActiveClusters(&clusters, kernel, &config) == cudaSuccess && clusters > 0;
}

void measure_barriers(int multiprocessors) {
  Shape shape{multiprocessors, 256};
  shape.cooperative = true;
  report("grid.sync()", std::to_string(multiprocessors) + " blocks",
         round_time([&](int rounds) { launch(grid_barrier, shape, nullptr, rounds); }), "ns");
  for (int cluster : {2, 4, 8, 16})
    if (cluster_fits(cluster_barrier, cluster)) {
      const Shape of_one{cluster, 256, cluster};
      report("barrier.cluster", std::to_string(cluster) + " blocks",
             round_time([&](int rounds) { launch(cluster_barrier, of_one, nullptr, rounds); }),
             "ns");
    }
}

// Exchange within a cluster: in every round each of C blocks sends its 1/C of `bytes` to all,
// itself included, by one st.async of 16 bytes a thread, and waits for all of them. What a thread
// sends is what it received, plus one. Buffers alternate: who sends round r + 2 has all of round r
// + 1, and so every block has read round r.

constexpr int MAX_BYTES = 2048;

__device__ uint32_t shared_address(const void *pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ uint32_t in_block(uint32_t address, uint32_t rank) {
  uint32_t remote;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(address), "r"(rank));
  return remote;
}

template <bool CLUSTER_SCOPE> __device__ bool has_phase(uint32_t barrier, uint32_t parity) {
  uint32_t done;
  if constexpr (CLUSTER_SCOPE)
    asm volatile("{\n\t.reg .pred p;\n\t"
                 "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n\t"
                 "selp.u32 %0, 1, 0, p;\n\t}"
                 : "=r"(done)
                 : "r"(barrier), "r"(parity)
                 : "memory");
  else
    asm volatile("{\n\t.reg .pred p;\n\t"
                 "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n\t"
                 "selp.u32 %0, 1, 0, p;\n\t}"
                 : "=r"(done)
                 : "r"(barrier), "r"(parity)
                 : "memory");
  return done;
}

template <bool CLUSTER_SCOPE> __global__ void cluster_exchange(int rounds, int bytes, int *fault) {
  __shared__ alignas(16) uint4 received[2][MAX_BYTES / 16];
  __shared__ alignas(8) uint64_t barriers[2];
  uint32_t rank, cluster;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(cluster));
  if (threadIdx.x == 0) {
    for (uint64_t &barrier : barriers)
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(&barrier))
                   : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  cluster_sync();

  // Thread t sends packet t / C of its block's share to block t % C.
  const uint32_t target = threadIdx.x % cluster;
  const uint32_t place = rank * (bytes / 16 / cluster) + threadIdx.x / cluster;
  const uint32_t bar = shared_address(barriers), to_bar = in_block(bar, target);
  const uint32_t to = in_block(shared_address(&received[0][place]), target);
  const long long start = clock64();
  bool late = false;
  uint4 value = {0, 0, 0, 0};
  for (int round = 0; round < rounds; ++round) {
    const uint32_t side = round & 1;
    if (threadIdx.x == 0)
      asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar + 8 * side),
                   "r"(bytes)
                   : "memory");
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 "
                 "[%0], {%1, %2, %3, %4}, [%5];" ::"r"(to + MAX_BYTES * side),
                 "r"(value.x + 1), "r"(value.y + 1), "r"(value.z + 1), "r"(value.w + 1),
                 "r"(to_bar + 8 * side)
                 : "memory");
    while (!late && !has_phase<CLUSTER_SCOPE>(bar + 8 * side, round >> 1 & 1))
      late = clock64() - start > DEADLINE;
    value = received[side][threadIdx.x];
  }
  if (late)
    *fault = 1;
  else if (value.x != rounds || value.w != rounds)
    *fault = 2;
  cluster_sync(); // nobody leaves while others may still write to it
}

template <bool CLUSTER_SCOPE> void measure_cluster_exchange_of(const char *name) {
  const auto kernel = cluster_exchange<CLUSTER_SCOPE>;
  for (int cluster : {2, 4, 8, 16})
    for (int bytes = 256; bytes <= MAX_BYTES && cluster_fits(kernel, cluster); bytes *= 2) {
      const Shape shape{cluster, bytes / 16, cluster};
      report(name, std::to_string(cluster) + " blocks, " + std::to_string(bytes) + " bytes",
             round_time(
                 [&](int rounds) { launch(kernel, shape, nullptr, rounds, bytes, fault().get()); }),
             "ns");
    }
}

void measure_cluster_exchange(int) {
  measure_cluster_exchange_of<false>("st.async + mbarrier");
  measure_cluster_exchange_of<true>("st.async + mbarrier, acquire.cluster");
}

// Exchange across the grid, through L2: a packet holds data and the number of its round, and is
// stored and loaded at once. In every round each block stores its packets, polls for all packets
// and passes the data on in shared memory. Buffers alternate, as above.

struct Packet64 {
  static constexpr int DATA_BYTES = 4;
  uint64_t bits;

  __device__ void store(Packet64 *to) const {
    asm volatile("st.relaxed.gpu.global.b64 [%0], %1;" ::"l"(to), "l"(bits) : "memory");
  }
  __device__ static Packet64 load(const Packet64 *from) {
    Packet64 packet;
    asm volatile("ld.relaxed.gpu.global.b64 %0, [%1];" : "=l"(packet.bits) : "l"(from) : "memory");
    return packet;
  }
  __device__ static Packet64 make(uint32_t data, uint32_t round) {
    return {static_cast<uint64_t>(round) << 32 | data};
  }
  __device__ uint32_t data() const { return static_cast<uint32_t>(bits); }
  __device__ uint32_t round() const { return static_cast<uint32_t>(bits >> 32); }
};

struct alignas(16) Packet128 {
  static constexpr int DATA_BYTES = 12;
  uint64_t low, high;

  __device__ void store(Packet128 *to) const {
    asm volatile("{\n\t.reg .b128 packet;\n\tmov.b128 packet, {%1, %2};\n\t"
                 "st.relaxed.gpu.global.b128 [%0], packet;\n\t}" ::"l"(to),
                 "l"(low), "l"(high)
                 : "memory");
  }
  __device__ static Packet128 load(const Packet128 *from) {
    Packet128 packet;
    asm volatile("{\n\t.reg .b128 packet;\n\tld.relaxed.gpu.global.b128 packet, [%2];\n\t"
                 "mov.b128 {%0, %1}, packet;\n\t}"
                 : "=l"(packet.low), "=l"(packet.high)
                 : "l"(from)
                 : "memory");
    return packet;
  }
  __device__ static Packet128 make(uint32_t data, uint32_t round) {
    return {static_cast<uint64_t>(data) << 32 | data, static_cast<uint64_t>(round) << 32 | data};
  }
  __device__ uint32_t data() const { return static_cast<uint32_t>(low >> 32); }
  __device__ uint32_t round() const { return static_cast<uint32_t>(high >> 32); }
};

constexpr int MAX_PACKETS = MAX_BYTES / Packet64::DATA_BYTES;

template <class Packet>
__global__ void grid_exchange(int rounds, int packets, Packet *buffers, int *fault) {
  __shared__ uint32_t received[2][MAX_PACKETS];
  const long long start = clock64();
  const int own = blockIdx.x + threadIdx.x * gridDim.x; // the packet that this thread sends
  bool late = false;
  uint32_t data = 0;
  for (int round = 1; round <= rounds; ++round) {
    const int side = round & 1;
    Packet *const buffer = buffers + side * MAX_PACKETS;
    if (own < packets)
      Packet::make(data + 1, round).store(buffer + own);
    for (int i = threadIdx.x; i < packets; i += blockDim.x) {
      Packet packet = Packet::load(buffer + i);
      while (!late && packet.round() != round) {
        late = clock64() - start > DEADLINE;
        packet = Packet::load(buffer + i);
      }
      received[side][i] = packet.data();
    }
    __syncthreads();
    data = received[side][own < packets ? own : 0];
  }
  if (late)
    *fault = 1;
  else if (data != rounds)
    *fault = 2;
}

template <class Packet> void measure_grid_exchange_of(const char *name, int multiprocessors) {
  Buffer<Packet> buffers(2 * MAX_PACKETS);
  for (int blocks : {8, 16, 32, 64, multiprocessors})
    for (int bytes = 256; bytes <= MAX_BYTES; bytes *= 2) {
      // Every block sends: otherwise nothing says that it has read the round before the last.
      const int packets = std::max((bytes + Packet::DATA_BYTES - 1) / Packet::DATA_BYTES, blocks);
      Shape shape{blocks, 256};
      shape.cooperative = true;
      report(name, std::to_string(blocks) + " blocks, " + std::to_string(bytes) + " bytes",
             round_time([&](int rounds) {
               buffers.clear();
               launch(grid_exchange<Packet>, shape, nullptr, rounds, packets, buffers.get(),
                      fault().get());
             }),
             "ns");
    }
}

void measure_grid_exchange(int multiprocessors) {
  measure_grid_exchange_of<Packet128>("128-bit packets through L2", multiprocessors);
  measure_grid_exchange_of<Packet64>("64-bit packets through L2", multiprocessors);
}

// Loads from L2

__global__ void l2_chase(int rounds, const uint32_t *next, uint32_t *out) {
  uint32_t at = threadIdx.x;
  for (int i = 0; i < rounds; ++i)
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(at) : "l"(next + at) : "memory");
  *out = at;
}

// Each block reads `count` vectors a round, from its own place on.
__global__ void l2_read(int rounds, const uint4 *data, int count, int stride, uint32_t *out) {
  constexpr int IN_FLIGHT = 8;
  uint32_t sum = 0;
  for (int round = 0; round < rounds; ++round)
    for (int i = threadIdx.x; i < count; i += IN_FLIGHT * blockDim.x) {
      uint4 v[IN_FLIGHT];
#pragma unroll
      for (int k = 0; k < IN_FLIGHT; ++k)
        asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v[k].x), "=r"(v[k].y), "=r"(v[k].z), "=r"(v[k].w)
                     : "l"(data + blockIdx.x * stride + i + k * blockDim.x));
#pragma unroll
      for (int k = 0; k < IN_FLIGHT; ++k)
        sum += v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
    }
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

void measure_l2(int multiprocessors) {
  constexpr int THREADS = 512, KILOBYTES = 128;
  Buffer<uint32_t> out(multiprocessors * THREADS);
  Buffer<uint32_t> chain(4096);
  std::vector<uint32_t> next(4096);
  for (uint32_t i = 0; i < next.size(); ++i)
    next[i] = (i + 1031) % next.size(); // another line each time
  CHECK(cudaMemcpy(chain.get(), next.data(), next.size() * 4, cudaMemcpyHostToDevice));
  report("dependent loads from L2", "1 thread",
         round_time([&](int rounds) { l2_chase<<<1, 1>>>(rounds, chain.get(), out.get()); }), "ns");

  const int count = KILOBYTES * 1024 / 16;
  Buffer<uint4> data(static_cast<size_t>(multiprocessors) * count);
  for (bool same : {false, true}) {
    const double ns = round_time([&](int rounds) {
      l2_read<<<multiprocessors, THREADS>>>(rounds, data.get(), count, same ? 0 : count, out.get());
    });
    const double bytes = count * 16.0 / ns;
    const std::string sizes = std::to_string(KILOBYTES) + (same ? " KB, the same" : " KB a block");
    report("L2 to one SM, all reading", sizes, bytes, "GB/s");
    report("L2 to all SMs", sizes, bytes * multiprocessors, "GB/s");
  }
}

// Products: mma.sync.m16n8k32 of int8, a fragment of 512 bytes of weights by 8 columns

__device__ void multiply(int (&sum)[4], const uint4 &a, uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, "
               "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
               : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

__device__ void write_sums(const int (&sum)[4], int *out) {
  atomicAdd(out + threadIdx.x % 32, sum[0] ^ sum[1] ^ sum[2] ^ sum[3]);
}

// CHAINS products a round, each on sums of its own, from registers. `cycles` is block 0's.
template <int CHAINS>
__global__ void products(int rounds, const uint4 *data, long long *cycles, int *out) {
  const uint4 a = data[threadIdx.x], b = data[threadIdx.x + blockDim.x];
  int sums[CHAINS][4] = {};
  __syncthreads();
  const long long start = clock64();
#pragma unroll 4
  for (int round = 0; round < rounds; ++round)
#pragma unroll
    for (int chain = 0; chain < CHAINS; ++chain)
      multiply(sums[chain], a, b.x, b.y);
  __syncthreads();
  if (blockIdx.x == 0 && threadIdx.x == 0)
    *cycles = clock64() - start;
  for (const auto &sum : sums)
    write_sums(sum, out);
}

constexpr int FRAGMENTS = 256; // in shared memory, 128 KB

// A round takes each fragment in shared memory once, by one 16-byte load a lane.
__global__ void __launch_bounds__(512, 1)
    products_from_shared(int rounds, const uint4 *data, long long *cycles, int *out) {
  constexpr int CHAINS = 8;
  extern __shared__ uint4 weights[];
  for (int i = threadIdx.x; i < FRAGMENTS * 32; i += blockDim.x)
    weights[i] = data[i];
  const uint4 b = data[threadIdx.x];
  const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const uint32_t first = shared_address(weights + warp * 32 + threadIdx.x % 32);
  int sums[CHAINS][4] = {};
  __syncthreads();
  const long long start = clock64();
  for (int round = 0; round < rounds; ++round) {
#pragma unroll 1
    for (int i = 0; i < FRAGMENTS / warps; i += CHAINS) {
      uint4 a[CHAINS];
#pragma unroll
      for (int chain = 0; chain < CHAINS; ++chain)
        asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(a[chain].x), "=r"(a[chain].y), "=r"(a[chain].z), "=r"(a[chain].w)
                     : "r"(first + (i + chain) * warps * 512));
#pragma unroll
      for (int chain = 0; chain < CHAINS; ++chain)
        multiply(sums[chain], a[chain], b.x, b.y);
    }
  }
  __syncthreads();
  if (blockIdx.x == 0 && threadIdx.x == 0)
    *cycles = clock64() - start;
  for (const auto &sum : sums)
    write_sums(sum, out);
}

using ProductKernel = void (*)(int, const uint4 *, long long *, int *);

// Cycles for a round.
double round_cycles(ProductKernel kernel, const Shape &shape, const uint4 *data) {
  static Buffer<long long> cycles(1);
  static Buffer<int> out(32);
  std::vector<double> times;
  for (int i = 0; i < REPEATS; ++i) {
    launch(kernel, shape, nullptr, SHORT, data, cycles.get(), out.get());
    const long long brief = cycles.first();
    launch(kernel, shape, nullptr, LONG, data, cycles.get(), out.get());
    times.push_back(static_cast<double>(cycles.first() - brief) / (LONG - SHORT));
  }
  return median(times);
}

void measure_products(int multiprocessors) {
  Buffer<uint4> data(FRAGMENTS * 32);
  report("dependent mma m16n8k32", "1 warp", round_cycles(products<1>, {1, 32}, data.get()),
         "cycles");
  Shape from_shared{multiprocessors, 0};
  from_shared.shared_bytes = FRAGMENTS * 512;
  CHECK(cudaFuncSetAttribute(products_from_shared, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(from_shared.shared_bytes)));
  for (int warps : {4, 8, 16}) {
    const std::string sizes = std::to_string(warps) + " warps an SM";
    const double cycles =
        round_cycles(products<4>, {multiprocessors, 32 * warps}, data.get()) / (4 * warps);
    report("mma from registers, all SMs", sizes, cycles, "cycles an mma and SM");
    from_shared.threads = 32 * warps;
    const double loaded = round_cycles(products_from_shared, from_shared, data.get()) / FRAGMENTS;
    report("mma from shared memory, all SMs", sizes, loaded, "cycles an mma and SM");
    report("shared memory to mma, all SMs", sizes, 512 / loaded, "bytes a cycle and SM");
  }
}

struct Part {
  const char *name;
  void (*measure)(int multiprocessors);
};
// What decides most comes first.
const Part PARTS[] = {
    {"exchange across the grid", measure_grid_exchange},
    {"exchange within a cluster", measure_cluster_exchange},
    {"barriers", measure_barriers},
    {"launches", measure_launches},
    {"products", measure_products},
    {"L2", measure_l2},
};

} // namespace

int main(int count, char **arguments) {
  if (count > 1 && std::string(arguments[1]) == "--list") {
    for (const Part &part : PARTS)
      std::printf("%s\n", part.name);
    return 0;
  }
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::fprintf(stderr, "latencies: there is no CUDA device\n");
    return 2;
  }
  cudaDeviceProp device;
  CHECK(cudaGetDeviceProperties(&device, 0));
  if (device.major != 9) {
    std::fprintf(stderr, "latencies: %s has compute capability %d.%d, not 9.0\n", device.name,
                 device.major, device.minor);
    return 2;
  }
  std::printf("{\"device\": \"%s\", \"multiprocessors\": %d, \"l2_bytes\": %d, \"repeats\": %d}\n",
              device.name, device.multiProcessorCount, device.l2CacheSize, REPEATS);
  for (const Part &part : PARTS)
    part.measure(device.multiProcessorCount);
  CHECK(cudaDeviceSynchronize());
  return all_measured ? 0 : 1;
}
