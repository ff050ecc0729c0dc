#include "kernels/kernels.h"

namespace lstm_fastkernels {

const Kernels &kernels(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx512vnni)
    return kAvx512VnniKernels;
  if (isa == Isa::avx2)
    return kAvx2Kernels;
#endif
  static_cast<void>(isa);
  return kScalarKernels;
}

} // namespace lstm_fastkernels
