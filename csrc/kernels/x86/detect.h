// What this machine's processor and operating system support.
#pragma once

namespace lstm_fastkernels {

bool has_avx2();       // and FMA
bool has_avx512vnni(); // and AVX2, AVX-512 F, VL, BW
bool has_amx();        // of 8-bit integers, and AVX-512 VNNI; asks the system for the registers

} // namespace lstm_fastkernels
