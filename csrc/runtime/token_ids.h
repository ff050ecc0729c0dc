// Token ids of a call, checked before anything is run.
#pragma once

#include "common/plane.h"
#include "common/schedule.h"
#include "common/workspace.h"

namespace lstm_fastkernels {

// Throws Error unless x is token ids where the LSTM reads such, and values where it reads those.
void check_input_kind(const LstmArguments &a, bool takes_ids);

// The ids of all active rows, int32, rows of all time steps behind each other: a copy, another
// thread may write the caller's. Throws Error for one that is not in 0..count - 1.
Plane checked_ids(const LstmArguments &a, const Schedule &schedule, int64_t count,
                  Workspace &memory);

} // namespace lstm_fastkernels
