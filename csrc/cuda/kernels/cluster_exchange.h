// Exchange within a cluster: asynchronous stores into distributed shared memory, which the
// receiver's mbarrier counts.
#pragma once

#include "cuda/kernels/exchange.h"

namespace lstm_fastkernels {
namespace cuda {

template <Arithmetic F, int kTilesOfBlock> class ClusterExchange {
public:
  static constexpr Arithmetic kArithmetic = F;
  static constexpr bool kCluster = true;
  static constexpr int kTiles = kTilesOfBlock;
  static constexpr int kGroups = 1;

  LFK_DEVICE ClusterExchange(const PersistentArguments &a, const BlockMemory &memory)
      : a_(a), memory_(memory), place_(a.hh) {}

  LFK_DEVICE void begin() {
    if (device::thread_index() == 0) {
      for (int i = 0; i < 2; ++i)
        memory_.full()[i].init(1);
      device::fence_mbarrier_init();
    }
    for (int i = 0; i < 2; ++i) {
      const QuantizedRows &from = a_.h[(a_.begin + i) % 2];
      const int pieces = static_cast<int>(from.stride) / 16;
      for (int row = device::warp(); row < a_.num_rows; row += kPersistentWarps)
        for (int n = device::lane(); n < pieces; n += 32)
          reinterpret_cast<Words4 *>(memory_.h(i) + row * memory_.layout.h_stride)[n] =
              reinterpret_cast<const Words4 *>(from.data + row * from.stride)[n];
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
              device::map_shared(
                  reinterpret_cast<Words4 *>(memory_.h(to) + row * memory_.layout.h_stride) +
                      place_.first_tile() * kTilePieces + piece,
                  rank),
              own[i], full);
      }
      if (device::lane() == 0)
        device::store_async(device::map_shared(memory_.nans(to) + place_.block(), rank),
                            Words4{{memory_.own_nans()[0], memory_.own_nans()[1], 0, 0}}, full);
    }
  }

  template <int kFragments, class Wanted, class Visit>
  LFK_DEVICE bool receive(int step, const Pass &pass, int first_column, const Wanted &wanted,
                          const Visit &visit) {
    const int turn = step % 2;
    if (pass.first == 0 && step > 0 && !wait(turn, (step - 1) / 2 % 2, pass.sent))
      return false;
    const uint8_t *const h =
        memory_.h(turn) + (pass.first + device::lane() / 4) * memory_.layout.h_stride +
        device::lane() % 4 * lane_bytes(F) + first_column * fragment_row_bytes(F);
    LFK_UNROLLED (b, kFragments)
      if (pass.first < pass.active && wanted(b))
        visit(b, 0, load_columns<F>(h + b * fragment_row_bytes(F)));
    return true;
  }

  // No block may return while others still send to it.
  LFK_DEVICE void end() { device::cluster_sync(); }

private:
  // Pieces of 16 bytes: of a tile's units, and of all tiles of a block.
  static constexpr int kTilePieces = activation_bytes(F), kPieces = kTiles * kTilePieces;

  LFK_DEVICE bool wait(int turn, int parity, int sent) {
    device::Mbarrier &full = memory_.full()[turn];
    if (device::thread_index() == 0)
      full.arrive_expect_bytes((a_.hh.num_tiles * kTilePieces * sent + place_.blocks()) *
                               int{sizeof(Words4)});
    Patience patience;
    bool came = true;
    while (came && !full.try_wait(parity))
      came = !patience.ran_out(a_.patience_ns);
    if (came && device::thread_index() < place_.blocks()) {
      const Words4 nans = memory_.nans(turn)[device::thread_index()];
      mark_rows(nans.words[0], nans.words[1], memory_.scales(turn));
    }
    return !device::any_lane(!came);
  }

  const PersistentArguments &a_;
  const BlockMemory memory_;
  const BlockPlace<kTiles> place_;
};

} // namespace cuda
} // namespace lstm_fastkernels
