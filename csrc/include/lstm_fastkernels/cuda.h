// A compressed LSTM stack on a CUDA device: the outputs of lstm.h, bit for bit. No CUDA headers: a
// stream is a cudaStream_t as void *.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "lstm_fastkernels/lstm.h"

namespace lstm_fastkernels {
namespace cuda {

// Cells validated, and how they are packed for CUDA devices: lstm_fastkernels::PackPlan, which says
// more. What write() makes in host memory is copied to a device as it is.
class LSTM_FASTKERNELS_API PackPlan {
public:
  PackPlan(const LstmShape &shape, const CellWeights *cells);
  ~PackPlan();
  PackPlan(const PackPlan &) = delete;

  size_t bytes() const;
  void write(void *packed, size_t bytes) const;

private:
  struct Plan;
  std::unique_ptr<const Plan> plan_;
};

// The packed form starts with a header that the host needs, too, since it cannot look into device
// memory without waiting for it. Throws Error for a shape that validate refuses.
LSTM_FASTKERNELS_API size_t header_bytes(const LstmShape &shape);

// Throws Error, naming the matrix, unless `packed`, a copy in host memory, aligned to 16 bytes, is
// such as PackPlan writes for this header: what came from elsewhere could make kernels read out of
// bounds. Takes a pass over the weights.
LSTM_FASTKERNELS_API void check_packed(const void *header, size_t header_bytes, const void *packed,
                                       size_t packed_bytes);

struct PackedStack; // the library's own

// A packed stack on a device, checked once. Copies share what was read.
class LSTM_FASTKERNELS_API DeviceStack {
public:
  // The header is host memory, read before the constructor returns; `packed` is device memory,
  // aligned to 16 bytes, that must live as long. Throws Error unless the header is consistent and
  // belongs to a packed form of exactly packed_bytes. Does not look into device memory: kernels
  // believe what is there, so whoever did not write it by PackPlan calls check_packed first.
  DeviceStack(const void *header, size_t header_bytes, const void *packed, size_t packed_bytes);

  const LstmShape &shape() const;
  const PackedStack &packed() const { return *packed_; }

private:
  std::shared_ptr<const PackedStack> packed_;
};

// Device memory that lstm_forward needs beside its arguments'; depends on their sizes, lengths and
// batch_sizes alone. Throws Error as lstm_forward does.
LSTM_FASTKERNELS_API size_t workspace_bytes(const DeviceStack &stack,
                                            const LstmArguments &arguments);

// Where a call runs.
struct Queue {
  int device = 0;
  void *stream = nullptr;     // cudaStream_t; null: the default stream
  void *workspace = nullptr;  // device, aligned to 256 bytes, until the stream has done the call
  size_t workspace_bytes = 0; // at least workspace_bytes(stack, arguments)
};

// Enqueues the stack's run and returns. x, y, h0, c0, h_n and c_n are device memory; lengths and
// batch_sizes are host memory, read before the call returns; `threads` is ignored. Allocates
// nothing, waits for nothing and can be captured into a CUDA graph, which keeps the lengths of the
// capture. Throws Error for arguments out of range, and where CUDA refuses a launch.
LSTM_FASTKERNELS_API void lstm_forward(const DeviceStack &stack, const LstmArguments &arguments,
                                       const Queue &queue);

// How the time steps of a layer are run.
enum class Way { nothing, one_launch, persistent, launches_each_step };

struct MatrixPlan {
  std::string name;
  Precision precision;
  int64_t block_columns = 0;    // of a block; it has 16 rows
  int64_t blocks = 0, kept = 0; // all, and those that are not zero
};

struct LayerPlan {
  Way way = Way::nothing;
  std::string reason;
  int64_t side_by_side = 1;         // layers at a time, this one among them
  std::vector<MatrixPlan> matrices; // of its directions
};

// How lstm_forward would run each layer on a device, and why. Throws as it does, but where there is
// no memory given.
LSTM_FASTKERNELS_API std::vector<LayerPlan> explain(const DeviceStack &stack,
                                                    const LstmArguments &arguments, int device);

// The same in words: a line for each layer; or the ways alone, in one.
LSTM_FASTKERNELS_API std::vector<std::string> describe(const std::vector<LayerPlan> &layers);
LSTM_FASTKERNELS_API std::string brief(const std::vector<LayerPlan> &layers);

} // namespace cuda
} // namespace lstm_fastkernels
