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

// What multiplies rows, quantized for it: a matrix or, where it is low-rank, V first, whose
// products are quantized for U.
struct Reading {
  const FactoredMatrix &matrix;
  RowKind kind;
  int64_t count;
  const QuantizedRows &rows;
  const Between &between;
};
Reading input_reading(const Call &call, const Part &part);
Reading h_reading(const Call &call, const Part &part, int64_t s);
Reading cell_output_reading(const Call &call, const Part &part, int64_t s);
// Of a low-rank matrix.
ProductsArguments v_arguments(const Reading &reading);
QuantizeArguments u_arguments(const Call &call, const Reading &reading);

// A chunk's input: quantized, then multiplied by W_ih.
QuantizeArguments input_arguments(const Call &call, const Part &part);
ProductsArguments input_products_arguments(const Call &call, const Part &part);

// Step s; with a projection o tanh(c) is quantized and multiplied by W_hr.
StepArguments step_arguments(const Call &call, const Part &part, int64_t s);
QuantizeArguments cell_output_arguments(const Call &call, const Part &part, int64_t s);
ProductsArguments projection_arguments(const Call &call, const Part &part, int64_t s);
// h after step s: copied to the output, and quantized for the next step.
QuantizeArguments h_arguments(const Call &call, const Part &part, int64_t s);

// All steps of a chunk, for a range of rows; then h is quantized for the next chunk.
PersistentArguments persistent_arguments(const Call &call, const Part &part, int64_t range);
QuantizeArguments last_h_arguments(const Call &call, const Part &part);

SingleStepArguments single_step_arguments(const Call &call, const Part &part);

} // namespace cuda
} // namespace lstm_fastkernels
