// The LSTM on NEON with FEAT_DotProd: one sdot stands for two widening products and two additions.
// Cost of 8 weight rows x 4 columns x 1 batch row, in 8 bits: 2 loads, 2 sdot. All else is that of
// neon.cpp.
#if defined(__aarch64__)
#if defined(__clang__) && __clang_major__ < 16
#error "older clang has FEAT_DotProd for whole files alone: use clang 16 or later, or GCC"
#endif
#include <arm_neon.h>

#include <type_traits>

#include "common/numerics.h"
#include "kernels/arm/detect.h"
#include "kernels/implementations.h"
#include "kernels/vector/inline.h"
#include "kernels/vector/target_region.h"
#include "weights/packed_int4.h"

#define LFK_ISA neon_dotprod

LFK_TARGET_BEGIN("arch=armv8.2-a+dotprod")

#include "kernels/arm/registers.inl"

namespace lstm_fastkernels {
namespace neon_dotprod {
namespace {

struct Bytes {
  using Sums = Integers;
  static LFK_INLINE Sums add(Sums sums, int8x16_t a, Pair<int8x16_t> w) {
    return {vdotq_s32(sums.low, w.low, a), vdotq_s32(sums.high, w.high, a)};
  }
  static LFK_INLINE Sums add_unsigned(Sums sums, uint8x16_t a, Pair<uint8x16_t> w) {
    const Pair<uint32x4_t> from = as_unsigned(sums);
    return as_integers(
        Pair<uint32x4_t>{vdotq_u32(from.low, w.low, a), vdotq_u32(from.high, w.high, a)});
  }
};

} // namespace
} // namespace neon_dotprod
} // namespace lstm_fastkernels

#include "kernels/arm/dot.inl"

#include "kernels/vector/products.inl"

#include "kernels/vector/multiply.inl"

#include "kernels/vector/lstm.inl"

namespace lstm_fastkernels {
namespace neon_dotprod {

extern const Implementation kImplementation = {
    "neon_dotprod", has_dotprod, {quantize_row, products, look_up, step}};

} // namespace neon_dotprod
} // namespace lstm_fastkernels

LFK_TARGET_END
#endif
