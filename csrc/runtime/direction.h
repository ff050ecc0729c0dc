// One layer and direction of a call for a range of rows, a chunk of steps at a time.
#pragma once

#include <cstdint>
#include <optional>

#include "common/plane.h"
#include "common/workspace.h"
#include "runtime/cell_state.h"
#include "runtime/operand.h"
#include "runtime/team.h"

namespace lstm_fastkernels {

// Steps of so many rows or more are done by pieces, from input products to h: what is between never
// leaves the first cache. Those of less rows share the way of the input's weights.
constexpr int64_t kRowsOfPieces = 8;

// A run of time steps in the direction of travel: step s is time s, or T - 1 - s in reverse.
struct Chunk {
  int64_t begin, end;
};

// All of a team's members run the same chunk at once, each on its share.
class Direction {
public:
  // For chunks of at most `most_rows` rows.
  Direction(const Call &call, Workspace &memory, int64_t layer, int64_t direction, RowRange rows,
            int64_t most_rows, int most_members);

  // The next chunk of at most `most_rows` rows, at least one step; alone, where it has many rows.
  Chunk next_chunk(int64_t begin, int64_t most_rows) const;

  // How many gates the scratch memory of `run` has to hold.
  int64_t gates_count() const { return gates_count_; }
  // Input rows are read before any output row is written, and all output rows are when it returns.
  void run(Chunk chunk, const Plane &in, const Plane &out, float *gates,
           const Member &member) const noexcept;

  void store_state() const { state_.store(steps_); }

private:
  int64_t active(int64_t t) const;
  int64_t time(int64_t s) const { return reverse_ ? call_.arguments.time_steps - 1 - s : s; }
  // Of those that have rows.
  int64_t step_of(int64_t s) const {
    return reverse_ ? s - (call_.arguments.time_steps - steps_) : s;
  }

  int64_t gates_of_a_piece(int64_t rows, int members) const {
    return rows * state_.tiles_of_a_piece(rows, members) * kTileRows;
  }

  // Calls visit(chunk row, its place in the plane) for a range of a chunk's rows.
  template <class Visit>
  void for_each_row(Chunk chunk, RowRange range, const Plane &in, const Visit &visit) const;
  const ActivationRows &quantize_inputs(Chunk chunk, int64_t rows, const Plane &in,
                                        const Member &member) const;
  void quantize_input(const uint8_t *row, DataType type, int64_t to, float *widened,
                      const Member &member) const;
  // These columns of the output of step s, whose first row is the chunk's row `first`.
  void pass_on(int64_t s, int64_t first, RowRange columns, const Plane &out) const;

  const Call &call_;
  const bool reverse_;
  const RowRange rows_;
  const int64_t cell_;
  const PackedMatrix &ih_;
  const uint8_t *bias_;
  const int64_t columns_;        // of the input
  std::optional<Operand> input_; // none where the matrix is a table
  float *widened_ = nullptr;     // a row for each member
  const CellState state_;
  int64_t steps_; // that have rows
  int64_t gates_count_ = 0;
};

} // namespace lstm_fastkernels
