// Running a packed stack that was checked before.
#pragma once

#include "lstm_fastkernels/lstm.h"
#include "weights/packed.h"

namespace lstm_fastkernels {

// lstm_forward.
void run_stack(const PackedStack &stack, const LstmArguments &arguments);

// explain.
CallPlan plan_call(const PackedStack &stack, const LstmArguments &arguments);

} // namespace lstm_fastkernels
