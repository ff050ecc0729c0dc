// The LSTM on AMX: products of several rows and dense 8-bit weights by tdpbusd, which adds those of
// 16 rows of activations, 16 rows of weights and 64 columns to a register of 16 x 16 sums. Whatever
// else there is goes to AVX-512 VNNI, which such a processor has.
#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns about its own _mm512_undefined_*.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include <type_traits>

#include "common/numerics.h"
#include "kernels/implementations.h"
#include "kernels/vector/inline.h"
#include "kernels/vector/target_region.h"
#include "kernels/x86/detect.h"
#include "weights/packed_int4.h"

namespace lstm_fastkernels::avx512vnni {
extern const Implementation kImplementation;
}

#define LFK_ISA amx

LFK_TARGET_BEGIN("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni,amx-tile,amx-int8")

#include "kernels/x86/registers.inl"

#include "kernels/x86/vnni.inl"

namespace lstm_fastkernels {
namespace amx {
namespace {

struct Dot : VnniDot {
  // The registers are configured, for some 200 cycles, each time that tiles are multiplied.
  static constexpr int kDensePairs = 128;
};

} // namespace
} // namespace amx
} // namespace lstm_fastkernels

#include "kernels/vector/products.inl"

namespace lstm_fastkernels {
namespace amx {
namespace {

constexpr int kMostRows = 16;
constexpr int kGroups = 16; // of 4 columns: what one tdpbusd takes
constexpr int kGroupBytes = kTileRows * group_bytes(Arithmetic::any8);
constexpr int kHalf = kTileRows / 2;

// Below, a pass over the weights by vpdpbusd takes no longer.
constexpr int64_t kLeastRows = 4;

// The shapes of tile registers: 0 and 1 are sums, 2 and 3 activations and weights of 64 columns, 4
// and 5 those of the columns that are left.
struct Shapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {};

  Shapes(int64_t activation_rows, int64_t groups_left) {
    for (int i : {0, 1, 2, 4})
      rows[i] = static_cast<uint8_t>(activation_rows);
    rows[3] = kGroups;
    rows[5] = static_cast<uint8_t>(groups_left ? groups_left : kGroups);
    row_bytes[4] = static_cast<uint16_t>(rows[5] * 4);
  }

  // GCC's _tile_loadconfig does not say that it reads all of them.
  LFK_INLINE void use() const { __asm__ volatile("ldtilecfg %0" : : "m"(*this)); }
};
static_assert(sizeof(Shapes) == 64);

// Of a tile: [half][row of activations][row of weights].
using Sums = int32_t[2][kMostRows][kHalf];

// w is a tile's weights, q the first row of activations.
LFK_INLINE void tile_sums(const uint8_t *w, const uint8_t *q, int64_t stride, int64_t groups,
                          Sums &sums) {
  constexpr int64_t kSecondHalf = kGroupBytes / 2;
  _tile_zero(0);
  _tile_zero(1);
#define LFK_ADD(a, b)                                                                              \
  _tile_loadd(a, q, stride);                                                                       \
  _tile_loadd(b, w, kGroupBytes);                                                                  \
  _tile_dpbusd(0, a, b);                                                                           \
  _tile_loadd(b, w + kSecondHalf, kGroupBytes);                                                    \
  _tile_dpbusd(1, a, b);
  for (; groups >= kGroups; groups -= kGroups, q += kGroups * 4, w += kGroups * kGroupBytes) {
    LFK_ADD(2, 3)
  }
  if (groups > 0) {
    LFK_ADD(4, 5)
  }
#undef LFK_ADD
  _tile_stored(0, sums[0], sizeof sums[0][0]);
  _tile_stored(1, sums[1], sizeof sums[0][0]);
}

// vpdpwssd takes the products of narrow row sums and zero points away: the row sums are the low
// halves of its elements, where the other factor's high halves are 0.
LFK_INLINE __m512i exact(bool wide, __m512i sums, __m512i row_sums, int32_t zero_point) {
  if (wide)
    return Dot::plus(sums, Dot::times(row_sums, -zero_point));
  return _mm512_dpwssd_epi32(sums, row_sums, _mm512_set1_epi32(static_cast<uint16_t>(-zero_point)));
}

// Puts the sums of a tile and of rows first.. of x. The tile's first row is `row` in the matrix and
// `at` in the target.
LFK_INLINE void put(const Matrix &m, int64_t row, const Sums &sums, const ActivationRows &x,
                    int64_t first, int64_t count, const Target &target, int64_t at) {
  __m512i row_sums[2];
  __m512 scales[2];
  LFK_UNROLLED (half, 2) {
    row_sums[half] = Dot::row_sums(m, row + half * kHalf);
    scales[half] = load_as<Wide>(target.scales, at + half * kHalf);
  }
  const bool wide = m.wide_row_sums;
  const int32_t *const zero_points = x.zero_points + first;
  const float *const row_scales = x.scales + first;
  const int64_t addend_stride = target.addend_stride * 4, out_stride = target.out_stride;
  const uint8_t *addend = target.addend + first * addend_stride + at * 4;
  float *out = target.out + first * out_stride + at;
#pragma GCC unroll 4
  for (int64_t r = 0; r < count; ++r, addend += addend_stride, out += out_stride) {
    LFK_UNROLLED (half, 2) {
      const __m512i sum =
          exact(wide, _mm512_load_si512(sums[half][r]), row_sums[half], zero_points[r]);
      const Wide scale = splat_as<Wide>(row_scales[r]) * scales[half];
      store(out + half * kHalf, fma(to_floats(sum), scale, load_as<Wide>(addend, half * kHalf)));
    }
  }
}

// Tiles first..first + tiles - 1 times all rows of x. The last rows may be multiplied twice.
void multiply(const Matrix &m, int64_t first, int64_t tiles, const ActivationRows &x, int64_t rows,
              const Target &target) {
  const int64_t passes = divide_up(rows, kMostRows), count = divide_up(rows, passes);
  const Shapes shapes(count, m.groups % kGroups);
  shapes.use();
  alignas(64) Sums sums;
  for (int64_t t = 0; t < tiles; ++t) {
    const uint8_t *const w = m.tiles + (first + t) * m.tile_bytes();
    for (int64_t pass = 0; pass < passes; ++pass) {
      const int64_t row = pass * count < rows - count ? pass * count : rows - count;
      tile_sums(w, x.data + row * x.stride, x.stride, m.groups, sums);
      put(m, (first + t) * kTileRows, sums, x, row, count, target, t * kTileRows);
    }
  }
}

} // namespace
} // namespace amx
} // namespace lstm_fastkernels

#include "kernels/vector/lstm.inl"

namespace lstm_fastkernels {
namespace amx {
namespace {

bool has_tiles(const Matrix &m, int64_t rows) {
  return rows >= kLeastRows && !m.is_sparse() &&
         (m.arithmetic == Arithmetic::pairs8 || m.arithmetic == Arithmetic::any8);
}

// Afterwards the tile registers are as if they had never been used: nothing of them has to be saved
// when the thread is changed.
void products_by_tiles(const Matrix &m, TileRange range, const uint8_t *bias, int64_t rows,
                       const ActivationRows &x, TileRows<float> out) {
  if (!has_tiles(m, rows))
    return avx512vnni::kImplementation.kernels.products(m, range, bias, rows, x, out);
  products(m, range, bias, rows, x, out);
  _tile_release();
}

void step_by_tiles(const Matrix &m, TileRange range, const StepArguments &a) {
  if (!has_tiles(m, a.rows))
    return avx512vnni::kImplementation.kernels.step(m, range, a);
  step(m, range, a);
  _tile_release();
}

} // namespace

extern const Implementation kImplementation = {
    "amx", has_amx, {quantize_row, products_by_tiles, look_up, step_by_tiles}};

} // namespace amx
} // namespace lstm_fastkernels

LFK_TARGET_END
#endif
