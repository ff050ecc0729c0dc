// Running a packed stack that was checked before.
#pragma once

#include "lstm_fastkernels/lstm.h"
#include "runtime/split.h"
#include "weights/packed.h"

namespace lstm_fastkernels {

// lstm_forward; split as given, if it is: at most 16 teams.
void run_stack(const PackedStack &stack, const LstmArguments &arguments,
               const Split *split = nullptr);

// explain.
CallPlan plan_call(const PackedStack &stack, const LstmArguments &arguments);

} // namespace lstm_fastkernels
