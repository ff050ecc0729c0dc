// A call on some rows of the states of many.
#include <limits>

#include "check.h"
#include "stack.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

constexpr int64_t kMany = 7;
const std::vector<int64_t> kRows = {5, 0, 6, 3};

// Values of the rows of kRows in [layers, kMany, columns] from [layers, rows, columns], and a mark
// in the others.
std::vector<float> scattered(const std::vector<float> &from, int64_t layers, float mark) {
  const int64_t rows = static_cast<int64_t>(kRows.size());
  const int64_t columns = static_cast<int64_t>(from.size()) / (layers * rows);
  std::vector<float> to(static_cast<size_t>(layers * kMany * columns), mark);
  for (int64_t layer = 0; layer < layers; ++layer)
    for (int64_t i = 0; i < rows; ++i)
      std::copy_n(from.begin() + (layer * rows + i) * columns, columns,
                  to.begin() + (layer * kMany + kRows[static_cast<size_t>(i)]) * columns);
  return to;
}

// Calls test(stack, sequence of as many rows as kRows).
template <class Test> void for_each_call(const Test &test) {
  for (Precision precision : kPrecisions)
    for (int64_t directions : {1, 2})
      for (int64_t proj : {0, 4}) {
        WITH("precision ", precision_name(precision), " directions ", directions, " proj ", proj);
        const SourceStack stack =
            random_stack(shape_of(7, 9, proj, 2, directions, precision), Weights::any, 171);
        test(stack, random_sequence(stack.shape, 3, static_cast<int64_t>(kRows.size()), 172));
      }
}

void check_rows(const SourceStack &stack, const Sequence &s, const std::vector<int64_t> &lengths) {
  constexpr float kMark = 77.0f;
  const auto packed = stack.packed();
  for_each_isa([&](std::string_view) {
    const Result expected = forward(packed, s, 1, lengths);
    for (bool in_place : {false, true}) {
      WITH("in place ", in_place);
      Result found;
      LstmArguments a = arguments_for(s, found);
      std::vector<float> h0 = scattered(s.h0, s.states(), kMark),
                         c0 = scattered(s.c0, s.states(), kMark);
      std::vector<float> h(h0.size(), kMark), c(c0.size(), kMark);
      a.lengths = lengths.empty() ? nullptr : lengths.data();
      a.state_rows = kRows.data();
      a.state_batch = kMany;
      a.h0 = h0.data();
      a.c0 = c0.data();
      a.h_n = in_place ? h0.data() : h.data();
      a.c_n = in_place ? c0.data() : c.data();
      lstm_forward(packed.data(), packed.size(), a);
      CHECK_SAME(found.y, expected.y);
      CHECK_SAME(in_place ? h0 : h, scattered(expected.h, s.states(), kMark));
      CHECK_SAME(in_place ? c0 : c, scattered(expected.c, s.states(), kMark));
    }
  });
}

TEST(a_call_takes_rows_of_the_states_of_many) {
  for_each_call([](const SourceStack &stack, const Sequence &s) {
    check_rows(stack, s, {});
    check_rows(stack, s, {2, 3, 1, 2});
  });
}

TEST(rows_of_states_do_not_depend_on_threads) {
  for (int64_t directions : {1, 2}) {
    const SourceStack stack =
        random_stack(shape_of(129, 129, 0, 1, directions), Weights::pair_safe, 173);
    const Sequence s = random_sequence(stack.shape, 90, static_cast<int64_t>(kRows.size()), 174);
    const auto packed = stack.packed();
    const Result expected = forward(packed, s);
    for (int threads : {2, 4}) {
      Result found;
      LstmArguments a = arguments_for(s, found);
      std::vector<float> h = scattered(s.h0, s.states(), 0), c = scattered(s.c0, s.states(), 0);
      a.state_rows = kRows.data();
      a.state_batch = kMany;
      a.h0 = a.h_n = h.data();
      a.c0 = a.c_n = c.data();
      a.threads = threads;
      lstm_forward(packed.data(), packed.size(), a);
      CHECK_SAME(found.y, expected.y);
      CHECK_SAME(h, scattered(expected.h, s.states(), 0));
      CHECK_SAME(c, scattered(expected.c, s.states(), 0));
    }
  }
}

TEST(rows_of_states_that_cannot_be_are_refused) {
  constexpr int64_t kLargest = std::numeric_limits<int64_t>::max();
  const SourceStack stack = random_stack(shape_of(7, 9), Weights::any, 175);
  const auto packed = stack.packed();
  const Sequence s = random_sequence(stack.shape, 2, 4, 176);
  const struct {
    std::vector<int64_t> rows;
    int64_t batch;
    const char *part;
  } refused[] = {
      {{5, 0, -1, 3}, kMany, "state_rows must be in 0..6, got -1 for row 2"},
      {{5, 0, 6, 7}, kMany, "state_rows must be in 0..6, got 7 for row 3"},
      {{kLargest, 0, 6, 3}, kMany, "state_rows must be in 0..6, got 9223372036854775807"},
      {{5, 0, 5, 3}, kMany, "state_rows must differ, got 5 for row 2 again"},
      {{0, 0, 0, 0}, kMany, "state_rows must differ, got 0 for row 1 again"},
      {{0, 1, 2, 3}, 3, "state_rows must be in 0..2, got 3 for row 3"},
      {{0, 1, 2, 3}, 0, "state_rows must be in 0..-1"},
      {{0, 1, 2, 3}, -1, "state_batch must be in 0..2147483647, got -1"},
      {{0, 1, 2, 3}, kLargest, "state_batch must be in 0..2147483647"}};
  for (const auto &[rows, batch, part] : refused) {
    WITH(part);
    Result found;
    LstmArguments a = arguments_for(s, found);
    const Result before = found;
    a.state_rows = rows.data();
    a.state_batch = batch;
    CHECK_THROWS(lstm_forward(packed.data(), packed.size(), a), part);
    CHECK_THROWS(explain(packed.data(), packed.size(), a), part);
    check_same(found, before);
  }
}

// Of the words in which repeated rows are looked for, all bits.
TEST(any_repeated_row_is_found) {
  constexpr int64_t kRowsOfMany = 130;
  const SourceStack stack = random_stack(shape_of(1, 1), Weights::any, 177);
  const auto packed = stack.packed();
  const Sequence s = random_sequence(stack.shape, 1, kRowsOfMany, 178);
  Result found;
  LstmArguments a = arguments_for(s, found);
  std::vector<int64_t> rows;
  for (int64_t row = kRowsOfMany; row-- > 0;)
    rows.push_back(row);
  a.state_rows = rows.data();
  a.state_batch = kRowsOfMany;
  lstm_forward(packed.data(), packed.size(), a);
  for (int64_t row = 1; row < kRowsOfMany; ++row) {
    rows.back() = row; // in the place of 0
    CHECK_THROWS(lstm_forward(packed.data(), packed.size(), a),
                 check::text("state_rows must differ, got ", row, " for row 129 again"));
  }
}

} // namespace
} // namespace lstm_fastkernels
