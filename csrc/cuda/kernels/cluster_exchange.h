// Exchange within a cluster: asynchronous stores into distributed shared memory, which the
// receiver's mbarrier counts.
#pragma once

#include "cuda/kernels/exchange.h"

namespace lstm_fastkernels {
namespace cuda {

template <int kTilesOfBlock> class ClusterExchange {
public:
  static constexpr bool kCluster = true;
  static constexpr int kTiles = kTilesOfBlock;

  LFK_DEVICE ClusterExchange(const PersistentArguments &a, const BlockMemory &memory)
      : a_(a), memory_(memory), place_(a.hh) {}

  LFK_DEVICE void begin() {
    if (device::thread_index() == 0) {
      for (int i = 0; i < 2; ++i)
        memory_.full()[i].init(1);
      device::fence_mbarrier_init();
    }
    device::cluster_sync();
  }

  // Sends to all blocks, its own included; each warp serves some of them.
  LFK_DEVICE void send(int step, int active) {
    const int to = (step + 1) % 2;
    const Words4 *const own = reinterpret_cast<const Words4 *>(memory_.own());
    for (int rank = device::warp(); rank < place_.blocks(); rank += kPersistentWarps) {
      const auto full = device::map_shared(&memory_.full()[to], rank);
      for (int i = device::lane(); i < active * kPieces; i += 32) {
        const int row = i / kPieces, piece = i % kPieces;
        if (piece < place_.tiles() * kTilePieces)
          device::store_async(
              device::map_shared(reinterpret_cast<Words4 *>(memory_.h_row(step + 1, row)) +
                                     place_.first_tile() * kTilePieces + piece,
                                 rank),
              own[i], full);
      }
      if (device::lane() == 0)
        device::store_async(device::map_shared(memory_.nan_pieces(to) + place_.block(), rank),
                            Words4{{memory_.own_nans()[0], memory_.own_nans()[1], 0, 0}}, full);
    }
  }

  LFK_DEVICE bool collect(int step, int sent) {
    const int turn = step % 2, parity = (step - 1) / 2 % 2;
    device::Mbarrier &full = memory_.full()[turn];
    if (device::thread_index() == 0)
      full.arrive_expect_bytes((a_.hh.num_tiles * kTilePieces * sent + place_.blocks()) *
                               int{sizeof(Words4)});
    Patience patience;
    bool came = true;
    while (came && !full.try_wait(parity))
      came = !patience.ran_out(a_.patience_ns);
    if (came && device::thread_index() < place_.blocks())
      memory_.add_nans(memory_.nan_pieces(turn)[device::thread_index()]);
    return !device::any_lane(!came);
  }

  // No block may return while others still send to it.
  LFK_DEVICE void end() { device::cluster_sync(); }

private:
  // Pieces of 16 bytes: of a tile's units, and of all tiles of a block.
  static constexpr int kTilePieces = kBandHeight * int{sizeof(int16_t)} / int{sizeof(Words4)};
  static constexpr int kPieces = kTiles * kTilePieces;

  const PersistentArguments &a_;
  const BlockMemory memory_;
  const BlockPlace<kTiles> place_;
};

} // namespace cuda
} // namespace lstm_fastkernels
