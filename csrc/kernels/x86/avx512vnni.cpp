// The LSTM on AVX-512 VNNI: vnni.inl has the products.
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

#define LFK_ISA avx512vnni

LFK_TARGET_BEGIN("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")

#include "kernels/x86/registers.inl"

#include "kernels/x86/vnni.inl"

namespace lstm_fastkernels {
namespace avx512vnni {
namespace {

using Dot = VnniDot;

} // namespace
} // namespace avx512vnni
} // namespace lstm_fastkernels

#include "kernels/vector/products.inl"

#include "kernels/x86/paired.inl"

#include "kernels/vector/multiply.inl"

#include "kernels/vector/lstm.inl"

namespace lstm_fastkernels {
namespace avx512vnni {

extern const Implementation kImplementation = {
    "avx512vnni", has_avx512vnni, {quantize_row, products, look_up, step}};

} // namespace avx512vnni
} // namespace lstm_fastkernels

LFK_TARGET_END
#endif
