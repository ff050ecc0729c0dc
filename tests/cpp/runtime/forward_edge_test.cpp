// lstm_forward where there is nothing to compute, something that must not be computed, or a row
// that has lost its numbers.
#include <algorithm>
#include <cmath>
#include <limits>

#include "check.h"
#include "stack.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Call {
  TypedShape shape = shape_of(3, 5, 0, 2);
  std::vector<uint8_t> packed = random_stack(shape, Weights::any, 31).packed();
  Sequence sequence = random_sequence(shape, 4, 3, 32);
  Result result;
  LstmArguments arguments = arguments_for(sequence, result);

  void run() const { lstm_forward(packed.data(), packed.size(), arguments); }
};

TEST(impossible_sizes_of_a_call_are_refused) {
  for (int64_t steps : {int64_t{0}, int64_t{-1}, std::numeric_limits<int64_t>::min()}) {
    Call call;
    call.arguments.time_steps = steps;
    CHECK_THROWS(call.run(), "time_steps");
  }
  Call call;
  call.arguments.batch_size = -1;
  CHECK_THROWS(call.run(), "batch_size");
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  const std::vector<int64_t> lengths = {4, 2, 4};
  for (const int64_t *given : {static_cast<const int64_t *>(nullptr), lengths.data()})
    for (int64_t batch : {int64_t{0}, int64_t{2}, int64_t{3}, kMost / 2}) {
      WITH("batch ", batch);
      call.arguments.lengths = given;
      call.arguments.batch_size = batch;
      call.arguments.time_steps = batch > 3 ? 4 : kMost;
      CHECK_THROWS(call.run(), "time_steps * batch_size must be at most");
      CHECK_THROWS(explain(call.packed.data(), call.packed.size(), call.arguments), "at most");
    }
}

// Of y: another layout is another place for each row, never the same for two.
TEST(rows_that_overlap_are_refused) {
  const auto check = [](int64_t time, int64_t row, const char *part) {
    WITH("time ", time, " row ", row);
    Call call; // 4 steps, 3 rows, 5 columns
    call.result.y.assign(4 * 3 * 5, 7);
    call.arguments.y = call.result.y.data();
    call.arguments.y_time_stride = time;
    call.arguments.y_row_stride = row;
    if (part)
      CHECK_THROWS(call.run(), part);
    else
      call.run();
  };
  check(15, 5, nullptr);
  check(5, 20, nullptr);
  for (const auto &[time, row] : {std::pair<int64_t, int64_t>{14, 5},
                                  {15, 4},
                                  {5, 19},
                                  {4, 20},
                                  {5, 5},
                                  {0, 5},
                                  {15, 0},
                                  {-14, 5},
                                  {5, -4},
                                  {0, 0}})
    check(time, row, "y: its strides make rows overlap");
  for (int64_t stride : {std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max(),
                         int64_t{1} << 47}) {
    check(stride, 5, "y: its strides are out of range");
    check(15, stride, "y: its strides are out of range");
    Call call;
    call.arguments.x_time_stride = stride;
    CHECK_THROWS(call.run(), "x: its strides are out of range");
  }
  Call call;
  call.arguments.x_row_stride = call.arguments.x_time_stride = 0; // rows of x may be one
  call.run();
  call.arguments.threads = -1;
  CHECK_THROWS(call.run(), "threads must not be negative, got -1");
}

TEST(the_largest_calls_are_explained) {
  Call call;
  call.arguments.time_steps = int64_t{1} << 38;
  call.arguments.batch_size = int64_t{1} << 6;
  const CallPlan plan = explain(call.packed.data(), call.packed.size(), call.arguments);
  CHECK(plan.products >= call.arguments.time_steps);
}

TEST(impossible_lengths_are_refused) {
  for (int64_t bad : {int64_t{0}, int64_t{5}, int64_t{-1}, std::numeric_limits<int64_t>::max()})
    for (size_t at = 0; at < 3; ++at) {
      WITH("length ", bad, " at ", at);
      Call call;
      std::vector<int64_t> lengths = {4, 2, 4};
      lengths[at] = bad;
      call.arguments.lengths = lengths.data();
      const std::vector<float> before = call.result.y;
      CHECK_THROWS(call.run(), "lengths must be in 1..4");
      CHECK_SAME(call.result.y, before);
    }
}

void check_batch_sizes_refused(const std::vector<int64_t> &batch_sizes, const std::string &part) {
  Call call;
  call.arguments.batch_sizes = batch_sizes.data();
  CHECK_THROWS(call.run(), part);
}

TEST(impossible_batch_sizes_are_refused) {
  check_batch_sizes_refused({3, 1, 2, 1}, "not increasing");
  check_batch_sizes_refused({3, 3, 3, 4}, "not increasing");
  check_batch_sizes_refused({3, 3, 1, 0}, "positive");
  check_batch_sizes_refused({3, 3, 1, -1}, "positive");
  check_batch_sizes_refused({2, 2, 1, 1}, "start with");
  check_batch_sizes_refused({4, 2, 1, 1}, "start with");
}

TEST(contradicting_arguments_are_refused) {
  Call call;
  const std::vector<int64_t> threes(4, 3);
  call.arguments.lengths = call.arguments.batch_sizes = threes.data();
  CHECK_THROWS(call.run(), "not both");
  Call without_c;
  without_c.arguments.c0 = nullptr;
  CHECK_THROWS(without_c.run(), "both h0 and c0");
  Call without_h;
  without_h.arguments.h0 = nullptr;
  CHECK_THROWS(without_h.run(), "both h0 and c0");
}

TEST(an_empty_batch_touches_nothing) {
  for (int64_t directions : {1, 2}) {
    const TypedShape shape = shape_of(3, 5, 0, 2, directions);
    const auto packed = random_stack(shape, Weights::any, 33).packed();
    const std::vector<int64_t> none(4, 0);
    for_each_isa([&](std::string_view) {
      LstmArguments a;
      a.time_steps = 4;
      lstm_forward(packed.data(), packed.size(), a);
      a.lengths = none.data();
      lstm_forward(packed.data(), packed.size(), a);
      a.lengths = nullptr;
      a.batch_sizes = none.data();
      lstm_forward(packed.data(), packed.size(), a);
    });
  }
}

// y of one row and direction of the last layer at one step.
std::vector<float> outputs(const Call &call, int64_t t, int64_t row, int64_t direction) {
  const int64_t n = call.shape.output_size();
  const auto at = call.result.y.begin() + (t * call.sequence.B + row) * call.sequence.y_columns() +
                  direction * n;
  return {at, at + n};
}

bool all_nan(const std::vector<float> &v) {
  return std::all_of(v.begin(), v.end(), [](float f) { return std::isnan(f); });
}

Call call_of(const TypedShape &shape, const Sequence &sequence) {
  Call call;
  call.shape = shape;
  call.packed = random_stack(shape, Weights::any, 34).packed();
  call.sequence = sequence;
  call.result = forward(call.packed, sequence);
  return call;
}

template <class Test> void for_each_stack(int64_t directions, const Test &test) {
  for_each_isa([&](std::string_view) {
    for (int64_t layers : {1, 3})
      for (int64_t proj : {0, 4})
        for (Precision precision : kPrecisions)
          for (float bad : {kNan, kInfinity, -kInfinity}) {
            WITH("layers ", layers, " proj ", proj, " precision ", precision_name(precision),
                 " bad ", bad);
            test(shape_of(7, 9, proj, layers, directions, precision), bad);
          }
  });
}

// Row 1 is `bad` from step `from` on; the other rows are as without it.
void check_lost_row(const Call &bad, const Call &good, int64_t from) {
  for (int64_t t = 0; t < bad.sequence.T; ++t)
    for (int64_t row = 0; row < bad.sequence.B; ++row) {
      WITH("time ", t, " row ", row);
      if (row == 1 && t >= from)
        CHECK(all_nan(outputs(bad, t, row, 0)));
      else
        CHECK_SAME(outputs(bad, t, row, 0), outputs(good, t, row, 0));
    }
  for (int64_t row = 0; row < bad.sequence.B; ++row) {
    WITH("states of row ", row);
    const Result found = bad.result.row(bad.sequence, row, 1);
    const Result expected = good.result.row(good.sequence, row, 1);
    if (row == 1) {
      CHECK(all_nan(found.h) && all_nan(found.c));
    } else {
      CHECK_SAME(found.h, expected.h);
      CHECK_SAME(found.c, expected.c);
    }
  }
}

TEST(a_non_finite_input_loses_its_row_from_there_on) {
  for_each_stack(1, [](const TypedShape &shape, float value) {
    const Sequence sequence = random_sequence(shape, 5, 3, 35);
    const Call good = call_of(shape, sequence);
    Sequence changed = sequence;
    changed.x[static_cast<size_t>((2 * 3 + 1) * shape.input_size + 6)] = value;
    check_lost_row(call_of(shape, changed), good, 2);
  });
}

TEST(a_non_finite_state_loses_its_row) {
  for_each_stack(1, [](const TypedShape &shape, float value) {
    const Sequence sequence = random_sequence(shape, 4, 3, 36);
    const Call good = call_of(shape, sequence);
    for (bool in_h : {true, false}) {
      WITH("in h0 ", in_h);
      Sequence changed = sequence;
      const int64_t columns = in_h ? shape.output_size() : shape.hidden_size;
      (in_h ? changed.h0 : changed.c0)[static_cast<size_t>(2 * columns - 1)] = value;
      const Call bad = call_of(shape, changed);
      for (int64_t t = 0; t < 4; ++t) {
        CHECK(all_nan(outputs(bad, t, 1, 0)));
        CHECK_SAME(outputs(bad, t, 0, 0), outputs(good, t, 0, 0));
        CHECK_SAME(outputs(bad, t, 2, 0), outputs(good, t, 2, 0));
      }
    }
  });
}

TEST(reverse_loses_the_steps_before) {
  for_each_stack(2, [](const TypedShape &shape, float value) {
    const Sequence sequence = random_sequence(shape, 5, 3, 37);
    const Call good = call_of(shape, sequence);
    Sequence changed = sequence;
    changed.x[static_cast<size_t>((2 * 3 + 1) * shape.input_size)] = value;
    const Call bad = call_of(shape, changed);
    for (int64_t t = 0; t < 5; ++t)
      for (int64_t direction : {0, 1}) {
        WITH("time ", t, " direction ", direction);
        const bool reached = shape.num_layers > 1 || (direction == 0 ? t >= 2 : t <= 2);
        if (reached)
          CHECK(all_nan(outputs(bad, t, 1, direction)));
        else
          CHECK_SAME(outputs(bad, t, 1, direction), outputs(good, t, 1, direction));
        CHECK_SAME(outputs(bad, t, 0, direction), outputs(good, t, 0, direction));
      }
  });
}

} // namespace
} // namespace lstm_fastkernels
