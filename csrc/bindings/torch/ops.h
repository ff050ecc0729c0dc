// The ops that have a file of their own; ops.cpp holds the schemas.
#pragma once

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "bindings/torch/cuda_kernels.h"
#include "bindings/torch/tensors.h"

namespace lstm_fastkernels {

// x [T, B, I], or [B, T, I] with batch_first; or the data [N, I] of a PackedSequence, and then
// `lengths`, on the CPU in either case, holds its batch_sizes. The other tensors are where `packed`
// is, on the CPU or, with its head, on a CUDA device.
std::tuple<Tensor, Tensor, Tensor>
lstm(Tensor x, std::optional<Tensor> h0, std::optional<Tensor> c0, std::optional<Tensor> lengths,
     const Tensor &packed, int64_t input_size, int64_t hidden_size, int64_t proj_size,
     int64_t num_layers, bool bidirectional, bool batch_first, const std::optional<Head> &head);

// What lstm would do with these arguments, and why: several lines. Runs nothing.
std::string explain_lstm(Tensor x, std::optional<Tensor> h0, std::optional<Tensor> c0,
                         std::optional<Tensor> lengths, const Tensor &packed, int64_t input_size,
                         int64_t hidden_size, int64_t proj_size, int64_t num_layers,
                         bool bidirectional, bool batch_first, const std::optional<Head> &head);

// `tensors`, on the CPU, hold for each layer and direction weight_ih and weight_hh, then the bias
// if there is one, then weight_hr with a projection. Each matrix is one tensor, or its blocks
// [blocks, block rows, block columns] followed by crow_indices and col_indices; then come the
// scales of an int8 one. Returns the packed form on the CPU and, packed for CUDA, its head.
std::tuple<Tensor, std::optional<Head>> pack_lstm(std::vector<Tensor> tensors, int64_t input_size,
                                                  int64_t hidden_size, int64_t proj_size,
                                                  int64_t num_layers, bool bidirectional, bool bias,
                                                  int64_t activation_bits, bool cuda);

} // namespace lstm_fastkernels
