// What one layer and direction carries from step to step, for a range of rows.
#pragma once

#include <cstdint>
#include <optional>

#include "common/schedule.h"
#include "common/workspace.h"
#include "kernels/implementations.h"
#include "runtime/operand.h"
#include "weights/packed.h"

namespace lstm_fastkernels {

struct RowRange {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

// What all parts of a call share.
struct Call {
  const PackedStack &stack;
  const LstmArguments &arguments;
  const Kernels &kernels;
  const Schedule schedule;

  int64_t gates_per_row() const { return stack.layers[0].hh.num_tiles * kTileRows; }
  int64_t units_per_row() const { return stack.layers[0].hh.num_tiles * kTileUnits; }
};

class CellState {
public:
  // Takes its memory and loads h0 and c0.
  CellState(const Call &call, Workspace &memory, int64_t cell, RowRange rows);

  // One step of the first `count` rows from their gates' input products.
  void step(int64_t count, const float *input_gates);
  // The output of a row after a step: h, or its projection.
  const float *output(int64_t row) const { return h_ + row * h_stride_; }
  // Into h_n and c_n.
  void store() const;

private:
  // Of h0, c0, h_n or c_n.
  uint8_t *caller_row(const void *state, int64_t columns, int64_t row) const;
  void load();

  const Call &call_;
  const int64_t cell_;
  const PackedLayer &weights_;
  const RowRange rows_;
  float *c_;
  float *cell_output_; // o tanh(c)
  float *h_;           // the output: cell_output_, or its projection
  int64_t h_stride_;
  const Operand quantized_h_;                    // as a step reads it
  std::optional<Operand> quantized_cell_output_; // with a projection
};

} // namespace lstm_fastkernels
