// One time step of a layer in one launch, from the caller's state to the caller's state: streaming.
#pragma once

#include <cstdint>

#include "common/plane.h"
#include "cuda/host/device_stack.h"
#include "cuda/kernels/device_types.h"
#include "cuda/kernels/plain_kernels.h"
#include "cuda/kernels/rows.h"

namespace lstm_fastkernels {
namespace cuda {

// One direction. Nothing that is read may be written.
struct SingleStepArguments {
  Matrix ih, hh;
  const float *bias = nullptr;
  Rows rows; // of one time step
  int32_t input_size = 0, hidden_size = 0;
  float x_floor = 0; // the smallest magnitude that scales a row of the input
  Plane x, y;
  const void *h0 = nullptr, *c0 = nullptr; // [batch][hidden_size]; null: zeros
  void *h_n = nullptr, *c_n = nullptr;
  DataType state_type = DataType::float32;
};

// Whether there is enough shared memory for it; not where there is a projection.
bool single_step_fits(const LstmShape &shape, const device::Limits &limits);

void single_step(Form form, const Directions<SingleStepArguments> &arguments, void *stream);

} // namespace cuda
} // namespace lstm_fastkernels
