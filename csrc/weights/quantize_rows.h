// quantize_rows and quantize_groups of weights.h on threads that the caller has.
#pragma once

#include <functional>

#include "lstm_fastkernels/weights.h"

namespace lstm_fastkernels {

// Calls task(i) for each i in 0..count-1, in any order, and returns when all are done.
using RunTasks = std::function<void(int count, const std::function<void(int)> &task)>;

// The results do not depend on run_tasks.
void quantize_rows(const float *weight, int64_t rows, int64_t columns, PairSafe pair_safe,
                   int8_t *quantized, float *scales, const RunTasks &run_tasks);
void quantize_groups(const float *weight, int64_t rows, int64_t columns, int64_t group_size,
                     uint8_t *quantized, float *scales, const RunTasks &run_tasks);

} // namespace lstm_fastkernels
