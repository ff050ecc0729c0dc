// What one layer and direction carries from step to step, for a range of rows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "common/plane.h"
#include "common/schedule.h"
#include "common/workspace.h"
#include "kernels/implementations.h"
#include "runtime/operand.h"
#include "runtime/pieces.h"
#include "runtime/state_rows.h"
#include "runtime/team.h"
#include "weights/packed.h"

namespace lstm_fastkernels {

// What all parts of a call share.
struct Call {
  const PackedStack &stack;
  const LstmArguments &arguments;
  const Kernels &kernels;
  const Schedule &schedule;
  const StateRows &state_rows;
  const Plane x; // of an LSTM that takes ids, those that were checked
  const bool begins_backwards;

  int64_t gates_per_row() const { return stack.layers[0].hh.num_tiles * kTileRows; }
  int64_t units_per_row() const { return stack.layers[0].hh.num_tiles * kTileUnits; }
};

// Members of a team share one: each calls all that is const at the same time as the others.
class CellState {
public:
  // Takes its memory, for a team of at most so many, and loads h0 and c0.
  CellState(const Call &call, Workspace &memory, int64_t cell, RowRange rows, int most_members);

  // Step `step`, counted from 0 in the direction of travel from the first one that has rows on, of
  // the first `count` rows, in pieces of so many tiles; input_gates(tiles) has theirs.
  template <class InputGates>
  void step(int64_t step, int64_t count, int64_t size, const Member &member,
            const InputGates &input_gates) const {
    StepArguments a = begin(step, count, member);
    for_each_piece(2 * step + 2, size, member, [&](TileRange tiles) {
      a.input_gates = input_gates(tiles);
      call_.kernels.step(weights_.hh, tiles, a);
    });
    end(step, count, member);
  }
  // Calls visit(tiles) for all tiles, on the members, each of which calls this: in pieces of so
  // many, as they come to them, or with 0 for each one's share. A turn is as Pieces has it; steps
  // have the even ones.
  template <class Visit>
  void for_each_piece(int64_t turn, int64_t size, const Member &member, const Visit &visit) const {
    // Every other step goes backwards: it begins with weights that the second cache still holds.
    const bool backwards = (turn % 4 < 2) != call_.begins_backwards;
    const auto visit_ith = [&](TileRange of, int64_t i, int64_t tiles) {
      const int64_t begin = of.begin + i * tiles;
      visit(TileRange{begin, std::min(begin + tiles, of.end)});
    };
    if (size != 0) {
      const TileRange all{0, weights_.hh.num_tiles};
      return pieces_.for_each(turn, divide_up(all.end, size), backwards, member,
                              [&](int64_t i) { visit_ith(all, i, size); });
    }
    const TileRange own = share(member);
    const int64_t tiles = own.end - own.begin, at_once = tiles_at_once(tiles);
    if (tiles <= at_once)
      return visit(own);
    pieces_.for_each(turn, divide_up(tiles, at_once), backwards, Member(),
                     [&](int64_t i) { visit_ith(own, i, at_once); });
  }
  // Tiles whose gates, of so many rows, fit the first cache; of a team's members each has two
  // pieces.
  int64_t tiles_of_a_piece(int64_t rows, int members) const {
    constexpr int64_t kLeast = 2, kPairs = 256; // of tiles and rows
    const int64_t fitting = std::max(kLeast, kPairs / rows);
    const int64_t tiles = members > 1 ? std::min(fitting, tiles_of_each(2 * members)) : fitting;
    return std::max(window_, tiles / window_ * window_);
  }
  // Tiles of a few rows that are worth taking; 0 where members are better off with a share each: a
  // team's have some pieces, of some 5 microseconds.
  int64_t tiles_worth_taking(int64_t rows, int members) const {
    constexpr int64_t kProducts = int64_t{1} << 19, kPieces = 8;
    if (members == 1)
      return 0;
    const int64_t of_a_tile = std::max<int64_t>(1, weights_.hh.products() / weights_.hh.num_tiles);
    const int64_t fewest = divide_up(kProducts, std::max<int64_t>(1, rows) * of_a_tile);
    const int64_t size = round_up(fewest, window_);
    return size <= tiles_of_each(kPieces * members) ? size : 0;
  }
  // The output of a row before a step: h, or its projection.
  const float *output(int64_t step, int64_t row) const { return h_of(step) + row * h_stride_; }
  // Of the output's columns, those that are a member's to pass on after a step.
  RowRange share_of_output(const Member &member) const;
  // Into h_n and c_n, after so many steps.
  void store(int64_t steps) const;

private:
  // The tiles that are a member's, of gates and units.
  TileRange share(const Member &member) const;
  // Of a share of so many: all, or where the second cache does not hold their weights so few that
  // it holds some, of which the next step can take the last ones first.
  int64_t tiles_at_once(int64_t tiles) const {
    constexpr int64_t kBytes = int64_t{1} << 18;
    const Matrix &m = weights_.hh;
    const int64_t bytes = m.products() * weight_bits(m.arithmetic) / 8;
    if (tiles * bytes <= kBytesOfL2 * m.num_tiles)
      return tiles;
    return round_up(divide_up(kBytes, bytes / m.num_tiles), window_);
  }
  int64_t tiles_of_each(int64_t pieces) const {
    return std::max<int64_t>(1, weights_.hh.num_tiles / pieces);
  }
  // What precedes and follows the products of a step.
  StepArguments begin(int64_t step, int64_t count, const Member &member) const;
  void end(int64_t step, int64_t count, const Member &member) const;

  // Of h0, c0, h_n or c_n.
  uint8_t *caller_row(const void *state, int64_t columns, int64_t row) const;
  void load();
  float *h_of(int64_t step) const { return h_ + (turns_ ? step % 2 * h_stride_ : 0); }
  // The first `count` of such rows, quantized by all members.
  ActivationRows quantized(const Operand &to, const float *rows, int64_t stride, int64_t count,
                           RowKind kind, const Member &member) const;

  const Call &call_;
  const int64_t cell_;
  const PackedLayer &weights_;
  const RowRange rows_;
  const int64_t window_; // of tiles that go together
  const Pieces pieces_;
  float *c_;
  float *cell_output_; // o tanh(c)
  float *h_;           // the output: cell_output_, or its projection
  int64_t h_stride_;
  // One row has two places for h, which take turns: members read the one while they write the
  // other.
  const bool turns_;
  // As steps read them.
  const Operand quantized_h_;
  std::optional<Operand> quantized_cell_output_; // where there is a projection
};

} // namespace lstm_fastkernels
