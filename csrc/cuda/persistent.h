// The persistent path: one launch for a run of time steps. Each block holds the recurrent weights
// of its units in registers and their c in shared memory; after each step the blocks exchange h,
// within a cluster through distributed shared memory, across the grid through L2.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "device.h"
#include "plain_kernels.h"
#include "rows.h"

namespace lstm_fastkernels {
namespace cuda {

constexpr int kPersistentRows = 64;     // of a batch, at most
constexpr int kPersistentWarps = 8;
constexpr int kLargestCluster = 16;
constexpr int kLargestClusterTiles = 3; // of a block in a cluster
constexpr int kLargestBlocks = 8;       // of a strip that a warp of 8 parts holds

// Which instance of the kernel, and how it is launched.
struct PersistentShape {
  bool cluster = false;
  bool sparse = false; // skips blocks that are zero; otherwise they are multiplied, too
  int tiles = 1;       // of a block of the grid
  int parts = 8;       // warps that share a strip's columns: 4 or 8
  int blocks = 1;      // of a strip that one of 8 parts holds; one of 4 holds twice as many
  int grid = 1;        // blocks with units, of each direction
};

// How a layer's steps are run, and why not otherwise.
struct Choice {
  bool persistent = false;
  PersistentShape shape; // if persistent
  std::string reason;
};

// For steps of `rows` rows through `directions` recurrent matrices at once.
Choice choose(const LstmShape &shape, const Matrix *const *matrices, int directions, int64_t rows,
              int64_t time_steps, const device::Limits &limits);

// One direction.
struct PersistentArguments {
  Rows rows;
  Matrix hh;
  int64_t begin = 0, end = 0; // steps in the direction of travel
  int32_t reverse = 0;
  int32_t hidden_size = 0;
  QuantizedRows h[2]; // as in StepArguments, read and written by turns
  const float *first_scales = nullptr;
  const float *input_gates = nullptr; // of rows from first_row on, without gaps
  int64_t first_row = 0;
  float *c = nullptr, *last_h = nullptr; // [batch][units_stride]
  int64_t units_stride = 0;
  Plane y;
  device::Words4 *packets = nullptr; // packets_of(); none with a cluster
  uint32_t epoch = 0;                // steps that went through `packets` before
  uint32_t *failed = nullptr;        // set to 1 where a wait takes too long
  uint64_t patience_ns = 0;
};

// Room for a direction's packets; a call starts with them zero.
int64_t packets_of(const PersistentShape &shape, int64_t rows);

// Runs steps begin .. end - 1 as so many calls of step() do.
void run_persistent(const PersistentShape &shape, const Both<PersistentArguments> &arguments,
                    void *stream);

} // namespace cuda
} // namespace lstm_fastkernels
