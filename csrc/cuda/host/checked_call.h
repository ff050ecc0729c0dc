// What a device takes of a call.
#pragma once

#include "common/schedule.h"

namespace lstm_fastkernels {
namespace cuda {

// Throws Error where the arguments are out of range.
Schedule checked_schedule(const LstmArguments &arguments);

} // namespace cuda
} // namespace lstm_fastkernels
