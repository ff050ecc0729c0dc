// The ops that have a file of their own; ops.cpp holds the schemas.
#pragma once

#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "bindings/torch/cuda_kernels.h"
#include "bindings/torch/tensors.h"
#include "lstm_fastkernels/error.h"

namespace lstm_fastkernels {

// x [T, B, I], or [B, T, I] with batch_first; or the data [N, I] of a PackedSequence, and then
// `lengths`, on the CPU in either case, holds its batch_sizes. The other tensors are where `packed`
// is, on the CPU or, with its header, on a CUDA device. `shape` is what shape_from takes.
std::tuple<Tensor, Tensor, Tensor> lstm(Tensor x, std::optional<Tensor> h0,
                                        std::optional<Tensor> c0, std::optional<Tensor> lengths,
                                        const Tensor &packed, const std::vector<int64_t> &shape,
                                        bool batch_first, const std::optional<Header> &header);

// What lstm would do with these arguments, and why: several lines or, `brief`, a few words on how
// the time steps are run. Runs nothing.
std::string explain_lstm(Tensor x, std::optional<Tensor> h0, std::optional<Tensor> c0,
                         std::optional<Tensor> lengths, const Tensor &packed,
                         const std::vector<int64_t> &shape, bool batch_first,
                         const std::optional<Header> &header, bool brief);

// release_memory; packed weights are forgotten, too, until the next call with them.
void release_all();

// `tensors`, on the CPU, are the canonical ones (docs/file_format.md), in any order; `precisions`
// has one for each matrix, in the order of matrix_names. Returns the packed form on the CPU and,
// packed for CUDA, its header.
std::tuple<Tensor, std::optional<Header>>
pack_lstm(const std::vector<Tensor> &tensors, const std::vector<std::string> &names,
          const std::vector<int64_t> &shape, const std::vector<std::string> &precisions, bool cuda);

// What pack_lstm packed, for the CPU or for CUDA, as its header says; on the CPU. Returns the
// canonical tensors and their names, see weights/unpacking.h. Throws for bytes that are none of
// its, and for another shape.
std::tuple<std::vector<Tensor>, std::vector<std::string>>
unpack_lstm(const Tensor &packed, const std::vector<int64_t> &shape);

// Whether `packed`, on the CPU, is what pack_lstm makes of these tensors for the CPU, `hash` being
// what hash_tensors said of them then: see packed_from in weights/packed_origin.h. Throws for
// packed weights that are damaged.
bool packed_fits(const Tensor &packed, const std::string &hash, const std::vector<Tensor> &tensors,
                 const std::vector<std::string> &names, const std::vector<int64_t> &shape,
                 const std::vector<std::string> &precisions);
std::string hash_tensors(const std::vector<Tensor> &tensors, const std::vector<std::string> &names);

// Throws unless packed weights of one shape are run as those of the other.
void check_made_for(const LstmShape &made_for, const LstmShape &shape);

// weight, on the CPU: float32 [N, K]; pair_safe: none for PairSafe::automatic. Returns int8 [N, K]
// and float32 scales [N].
std::tuple<Tensor, Tensor> quantize_matrix(Tensor weight, std::optional<bool> pair_safe);
// The same in groups of columns: uint8 [N, ceil(K / 2)], float32 [N, ceil(K / group_size)].
std::tuple<Tensor, Tensor> quantize_matrix_groups(Tensor weight, int64_t group_size);

// Makes an Error of `call` a ValueError in Python; without, it is a RuntimeError, which is torch's
// habit for wrong sizes and values.
template <class Call> void with_value_errors(const Call &call) {
  try {
    call();
  } catch (const Error &error) {
    throw std::invalid_argument(error.what());
  }
}

} // namespace lstm_fastkernels

// The packed weights at that address will not be run any more: their memory need not be held. Not
// an op: it is called when a module dies, which may be while someone traces ops.
extern "C" __attribute__((visibility("default"))) void lfk_forget_packed(const void *data);
