// The LSTM on NEON as every AArch64 processor has it. Cost of 8 weight rows x one 4-byte group of
// columns x 1 batch row:
//   8-bit     2 loads, 2 smull, 2 smull2, 4 sadalp               32 products
//   signed16  load, sshll, sshll2, 2 smlal, 2 smlal2             16 products
//   float32   2 loads, 2 fmla                                     8 products
//   int4      half of 2 loads, 1 and, 1 ushr; 4 umull, 4 sadalp  32 products
// and a broadcast (8-bit: and an eor), which 4 of them share in a dense tile; a block-sparse block
// has its own, and loads its column.
#if defined(__aarch64__)
#include <arm_neon.h>

#include <type_traits>

#include "common/numerics.h"
#include "kernels/implementations.h"
#include "kernels/vector/inline.h"
#include "weights/packed_int4.h"

#define LFK_ISA neon

#include "kernels/arm/registers.inl"

namespace lstm_fastkernels {
namespace neon {
namespace {

// A product of two signed bytes fits 16 bits, a sum of two of them does not: (-128)^2 + (-128)^2.
struct Bytes {
  using Sums = Parts;
  static LFK_INLINE Sums add(Sums sums, int8x16_t a, Pair<int8x16_t> w) {
    const int8x8_t half = vget_low_s8(a);
    return {vpadalq_s16(sums.rows01, vmull_s8(vget_low_s8(w.low), half)),
            vpadalq_s16(sums.rows23, vmull_high_s8(w.low, a)),
            vpadalq_s16(sums.rows45, vmull_s8(vget_low_s8(w.high), half)),
            vpadalq_s16(sums.rows67, vmull_high_s8(w.high, a))};
  }
  // A product fits 16 bits with a sign, too.
  static LFK_INLINE Sums add_unsigned(Sums sums, uint8x16_t a, Pair<uint8x16_t> w) {
    const uint8x8_t half = vget_low_u8(a);
    const auto add = [](int32x4_t to, uint16x8_t products) LFK_ALWAYS_INLINE {
      return vpadalq_s16(to, vreinterpretq_s16_u16(products));
    };
    return {add(sums.rows01, vmull_u8(vget_low_u8(w.low), half)),
            add(sums.rows23, vmull_high_u8(w.low, a)),
            add(sums.rows45, vmull_u8(vget_low_u8(w.high), half)),
            add(sums.rows67, vmull_high_u8(w.high, a))};
  }
};

} // namespace
} // namespace neon
} // namespace lstm_fastkernels

#include "kernels/arm/dot.inl"

#include "kernels/vector/products.inl"

#include "kernels/vector/multiply.inl"

#include "kernels/vector/lstm.inl"

namespace lstm_fastkernels {
namespace neon {

extern const Implementation kImplementation = {
    "neon", [] { return true; }, {quantize_row, products, look_up, step}};

} // namespace neon
} // namespace lstm_fastkernels
#endif
