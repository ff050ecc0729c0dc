// One time step of a layer in one launch, for streaming: reads and writes the caller's state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "common/plane.h"
#include "cuda/kernels/device_matrix.h"
#include "cuda/kernels/plain_kernels.h"
#include "cuda/kernels/rows.h"

namespace lstm_fastkernels {
namespace cuda {

// Of one direction. Outputs must not overlap inputs.
struct SingleStepArguments {
  DeviceMatrix ih, hh;
  const float *bias = nullptr;
  Rows rows; // of one time step
  Plane x, y;
  const void *h0 = nullptr, *c0 = nullptr; // [batch][hidden_size]; null: zeros
  void *h_n = nullptr, *c_n = nullptr;
  DataType state_type = DataType::float32;

  // Of ih and hh.
  std::pair<Arithmetic, Arithmetic> arithmetic() const {
    return {ih.arithmetic(), hh.arithmetic()};
  }
};

// Shared memory of a block.
size_t single_step_shared_bytes(const DeviceMatrix &ih, const DeviceMatrix &hh);

// As in plain_kernels.h.
void single_step(const Directions<SingleStepArguments> &arguments, void *stream);

} // namespace cuda
} // namespace lstm_fastkernels
