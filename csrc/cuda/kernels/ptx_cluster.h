// device.h on the GPU: communication between blocks.
#pragma once

#include "cuda/kernels/ptx.h"

// Kernels with clusters compile for older devices, but are never launched there.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define LFK_FOR_CLUSTERS(...) __VA_ARGS__
#else
#define LFK_FOR_CLUSTERS(...) __trap()
#endif

namespace lstm_fastkernels {
namespace device {

LFK_DEVICE void cluster_sync() {
  LFK_FOR_CLUSTERS(asm volatile("barrier.cluster.arrive.release;\n"
                                "barrier.cluster.wait.acquire;" :: : "memory"));
}

template <class T> class RemotePointer {
public:
  LFK_DEVICE explicit RemotePointer(uint32_t address) : address_(address) {}
  LFK_DEVICE uint32_t address() const { return address_; }

private:
  uint32_t address_ = 0; // in the window of shared::cluster
};

template <class T> LFK_DEVICE RemotePointer<T> map_shared(T *own, int rank) {
  uint32_t address = 0;
  LFK_FOR_CLUSTERS(asm volatile(
      "mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(own)),
      "r"(rank)));
  return RemotePointer<T>(address);
}

class Mbarrier {
public:
  LFK_DEVICE void init(int arrivals) {
    LFK_FOR_CLUSTERS(asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address()),
                                  "r"(arrivals) : "memory"));
  }
  LFK_DEVICE void arrive_expect_bytes(int bytes) {
    LFK_FOR_CLUSTERS(asm volatile(
        "mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(address()),
        "r"(bytes) : "memory"));
  }
  // Acquires stores of other blocks of the cluster.
  LFK_DEVICE bool try_wait(int parity) {
    uint32_t done = 0;
    LFK_FOR_CLUSTERS(
        asm volatile("{\n"
                     ".reg .pred done;\n"
                     "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, done;\n"
                     "}" : "=r"(done) : "r"(address()),
                     "r"(parity) : "memory"));
    return done != 0;
  }

private:
  LFK_DEVICE uint32_t address() const { return shared_address(this); }

  uint64_t state_;
};

LFK_DEVICE void fence_mbarrier_init() {
  LFK_FOR_CLUSTERS(asm volatile("fence.mbarrier_init.release.cluster;" :: : "memory"));
}

LFK_DEVICE void store_async(RemotePointer<Words4> to, const Words4 &value,
                            RemotePointer<Mbarrier> barrier) {
  LFK_FOR_CLUSTERS(asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 "
                                "[%0], {%1, %2, %3, %4}, [%5];" ::"r"(to.address()),
                                "r"(value.words[0]), "r"(value.words[1]), "r"(value.words[2]),
                                "r"(value.words[3]), "r"(barrier.address()) : "memory"));
}

#undef LFK_FOR_CLUSTERS

// One b128, not a vector: a vector's parts may be stored and loaded separately.
LFK_DEVICE void store_packet(Words4 *to, const Words4 &value) {
  asm volatile("{\n"
               ".reg .b128 packet;\n"
               ".reg .b64 low, high;\n"
               "mov.b64 low, {%1, %2};\n"
               "mov.b64 high, {%3, %4};\n"
               "mov.b128 packet, {low, high};\n"
               "st.relaxed.gpu.global.b128 [%0], packet;\n"
               "}" ::"l"(__cvta_generic_to_global(to)),
               "r"(value.words[0]), "r"(value.words[1]), "r"(value.words[2]), "r"(value.words[3])
               : "memory");
}
LFK_DEVICE Words4 load_packet(const Words4 *from) {
  Words4 value;
  asm volatile("{\n"
               ".reg .b128 packet;\n"
               ".reg .b64 low, high;\n"
               "ld.relaxed.gpu.global.b128 packet, [%4];\n"
               "mov.b128 {low, high}, packet;\n"
               "mov.b64 {%0, %1}, low;\n"
               "mov.b64 {%2, %3}, high;\n"
               "}"
               : "=r"(value.words[0]), "=r"(value.words[1]), "=r"(value.words[2]),
                 "=r"(value.words[3])
               : "l"(__cvta_generic_to_global(from))
               : "memory");
  return value;
}

LFK_DEVICE void pause() {}

LFK_DEVICE uint64_t global_timer_ns() {
  uint64_t time;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time));
  return time;
}

} // namespace device
} // namespace lstm_fastkernels
