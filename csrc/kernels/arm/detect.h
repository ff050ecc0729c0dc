// What this machine's processor and operating system support.
#pragma once

namespace lstm_fastkernels {

bool has_dotprod(); // FEAT_DotProd; only Linux is asked

} // namespace lstm_fastkernels
