// The order in which chunks of steps go through the layers of a stack.
#pragma once

#include "cuda/host/call.h"

namespace lstm_fastkernels {
namespace cuda {

void run_chunks(const Call &call);

} // namespace cuda
} // namespace lstm_fastkernels
