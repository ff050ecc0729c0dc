// What this machine's processor and operating system support.
#pragma once

namespace lstm_fastkernels {

bool has_avx2();       // and FMA
bool has_avx512vnni(); // and AVX2, AVX-512 F, VL, BW

} // namespace lstm_fastkernels
