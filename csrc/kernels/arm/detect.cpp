#if defined(__aarch64__)
#include "kernels/arm/detect.h"

#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace lstm_fastkernels {

bool has_dotprod() {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
  return false;
#endif
}

} // namespace lstm_fastkernels
#endif
