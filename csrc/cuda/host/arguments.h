// The kernels' arguments for a part of a call.
#pragma once

#include <cstdint>

#include "cuda/host/call.h"
#include "cuda/kernels/persistent.h"
#include "cuda/kernels/plain_kernels.h"
#include "cuda/kernels/single_step.h"

namespace lstm_fastkernels {
namespace cuda {

LoadStateArguments load_state_arguments(const Call &call, const Part &part);
StoreStateArguments store_state_arguments(const Call &call, const Part &part);

// A chunk's input: quantized, then multiplied by W_ih.
QuantizeArguments input_arguments(const Call &call, const Part &part);
ProductsArguments input_products_arguments(const Call &call, const Part &part);

// Step s, and the projection of its output, which is then quantized.
StepArguments step_arguments(const Call &call, const Part &part, int64_t s);
ProductsArguments projection_arguments(const Call &call, const Part &part, int64_t s);
QuantizeArguments projected_arguments(const Call &call, const Part &part, int64_t s);

// All steps of a chunk, for a range of rows.
PersistentArguments persistent_arguments(const Call &call, const Part &part, int64_t range);

SingleStepArguments single_step_arguments(const Call &call, const Part &part);

} // namespace cuda
} // namespace lstm_fastkernels
