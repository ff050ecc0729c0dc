// The persistent path: one launch for a run of time steps. Each block holds the recurrent weights
// of its units in registers and their c in shared memory; after each step the blocks exchange h,
// within a cluster through distributed shared memory, across the grid through L2.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cuda/host/device_stack.h"
#include "cuda/kernels/device_types.h"
#include "cuda/kernels/plain_kernels.h"
#include "cuda/kernels/rows.h"

namespace lstm_fastkernels {
namespace cuda {

constexpr int kPersistentRows = 64; // that a block takes at most
constexpr int kPersistentWarps = 8; // of a block; each has an eighth of the columns
constexpr int kPersistentThreads = kPersistentWarps * 32;
constexpr int kLargestCluster = 16;
// Tiles of a block in a cluster: as many as there are registers for the sums of.
constexpr int most_cluster_tiles(Form form) { return form == Form::signed8 ? 3 : 2; }
constexpr int kLargestBlocks = 8;                // of a strip that a warp holds
constexpr int64_t kMostSteps = int64_t{1} << 30; // of a launch
constexpr int kFewRows = 8;                      // of a batch that are multiplied at once

// Which instance of the kernel, and how it is launched.
struct PersistentShape {
  Form form = Form::signed8;
  bool cluster = false;
  bool few_rows = false; // int8 on the grid, for at most kFewRows
  int tiles = 1;         // of a block of the grid
  int blocks = 1;        // of a strip that a warp holds
  int grid = 1; // blocks of each direction and range; a cluster may have some without units
  // The batch is split into ranges of rows, each with blocks of its own, at work at the same time.
  int ranges = 1;
  int rows = 0; // of each range; the last may have fewer

  bool operator==(const PersistentShape &o) const {
    return form == o.form && cluster == o.cluster && few_rows == o.few_rows && tiles == o.tiles &&
           blocks == o.blocks && grid == o.grid && ranges == o.ranges && rows == o.rows;
  }
};

// Rows of each range of so many; 0 where the last range would have none.
int rows_of_range(int64_t batch, int ranges);

// How a layer's steps are run: persistent, or else a launch each; and why.
struct Choice {
  bool persistent = false;
  PersistentShape shape; // if persistent
  std::string reason;
  int side_by_side = 1; // layers of that shape that may be at work at the same time
};

// Neighbouring layers whose steps run side by side, each a chunk of steps behind the one below it.
struct Group {
  int64_t first, count;
};
std::vector<Group> groups_of(const std::vector<Choice> &layers);

// Whether such a layer is persistent where there is a shape that fits.
bool may_be_persistent(const LstmShape &shape, int64_t batch, int64_t time_steps);

// Layers of a stack that may run side by side on any device.
int most_side_by_side(const LstmShape &shape, int64_t batch, int64_t time_steps);

// All shapes that there are for a layer with a batch of so many rows, what is taken to be the
// fastest first; `layers` has its directions.
std::vector<PersistentShape> possible_shapes(const LstmShape &shape, const PackedLayer *layers,
                                             int64_t batch, const device::Limits &limits);

// A shape in words.
std::string describe(const PersistentShape &shape);

// For so many time steps, the first of them that fits.
Choice choose(const LstmShape &shape, const PackedLayer *layers, int64_t batch, int64_t time_steps,
              const device::Limits &limits,
              const std::function<bool(const PersistentShape &)> &fits);

// How many directions or layers a launch of a shape may have so that all their ranges are at work
// at once.
int at_once(const PersistentShape &shape, const PackedLayer &layer, int device);

// Whether that is enough: the blocks of a direction and range wait for each other.
bool fits(const PersistentShape &shape, const PackedLayer &layer, int directions, int device);

// A range of rows of one direction.
struct PersistentArguments {
  Rows rows;
  int64_t row_begin = 0;
  int32_t num_rows = 0;
  Matrix hh;
  int64_t begin = 0, end = 0; // steps in the direction of travel, at most kMostSteps
  int32_t reverse = 0;
  int32_t blocks = 1; // as in PersistentShape
  int32_t hidden_size = 0;
  // Of the range: its first row comes first.
  QuantizedRows h[2]; // as in StepArguments, read and written by turns
  const float *first_scales = nullptr;
  float *c = nullptr, *last_h = nullptr; // [num_rows][units_stride]
  int64_t units_stride = 0;
  // Of all rows.
  const float *input_gates = nullptr; // of rows from first_row on, without gaps
  int64_t first_row = 0;
  Plane y;
  device::Words4 *packets = nullptr; // of the range; unused in a cluster
  uint32_t epoch = 0;                // steps that went through `packets` before
  uint32_t *failed = nullptr;        // set to 1 where a wait takes too long
  uint64_t patience_ns = 0;
};

// Packets of a range, from the first one to the first of the next; a call starts with them zero.
int64_t range_packets(const Matrix &hh, int rows);
// Room for those of a direction, whatever the shape.
int64_t most_packets(const Matrix &hh, int64_t batch);

// Runs steps begin .. end - 1 as so many calls of step() do.
void run_persistent(const PersistentShape &shape, const SideBySide<PersistentArguments> &arguments,
                    void *stream);

} // namespace cuda
} // namespace lstm_fastkernels
