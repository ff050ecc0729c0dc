// LSTMs that read token ids: the bits of float32 input weights and one-hot rows.
#include <limits>

#include "check.h"
#include "lstm_fastkernels/model.h"
#include "stack.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

// Calls test(table, its float32 twin) with stacks of all kinds.
template <class Test> void for_each_stack(const Test &test) {
  for (Precision precision : kPrecisions)
    for (Precision table : kTables)
      for (int64_t proj : {0, 4})
        for (int64_t directions : {1, 2}) {
          WITH(precision_name(precision), " ", precision_name(table), " proj ", proj,
               " directions ", directions);
          SourceStack stack =
              random_stack(shape_of(23, 9, proj, 2, directions, precision), Weights::any, 171);
          if (proj && precision != kInt4)
            stack = in_blocks(stack, {8, 4}, 0.5f);
          test(with_tables(stack, table, 172), with_floats_first(stack, 172));
        }
}

Sequence one_hot(Sequence s) {
  s.ids.clear();
  return s;
}

TEST(ids_are_one_hot_rows) {
  for_each_stack([](const SourceStack &tables, const SourceStack &floats) {
    const auto packed = tables.packed(), twin = floats.packed();
    for (int64_t B : {1, 5, 9}) {
      const Sequence s = random_ids(tables.shape, 7, B, 173);
      const std::vector<int64_t> lengths = random_lengths(7, B, 174);
      for_each_isa([&](std::string_view) {
        check_same(forward(packed, s), forward(twin, one_hot(s)));
        check_same(forward(packed, s, 1, lengths), forward(twin, one_hot(s), 1, lengths));
      });
    }
  });
}

TEST(ids_do_not_depend_on_hidden_sizes_and_threads) {
  for (int64_t hidden : kAwkward)
    for (Precision table : kTables) {
      WITH("hidden ", hidden, " ", precision_name(table));
      const SourceStack stack = random_stack(shape_of(9, hidden), Weights::any, 175);
      const SourceStack tables = with_tables(stack, table, 176);
      const auto packed = tables.packed(), twin = with_floats_first(stack, 176).packed();
      const Sequence s = random_ids(stack.shape, 40, 9, 177); // several chunks
      const Result expected = forward(twin, one_hot(s));
      for_each_isa([&](std::string_view) {
        for (int threads : {1, 3})
          check_same(forward(packed, s, threads), expected);
      });
    }
}

// A batch_sizes call, and y and ids of other types.
TEST(ids_of_a_packed_sequence) {
  const SourceStack stack = random_stack(shape_of(23, 9), Weights::any, 178);
  const auto packed = with_tables(stack, kHalfTable, 179).packed();
  const auto twin = with_floats_first(stack, 179).packed();
  const Sequence s = random_ids(stack.shape, 3, 4, 180); // 9 rows of the 12
  const std::vector<int64_t> batch_sizes = {4, 3, 2};
  const std::vector<int32_t> short_ids(s.ids.begin(), s.ids.end());
  const auto run = [&](const std::vector<uint8_t> &of, const Sequence &sequence, const void *x) {
    Result result;
    std::vector<uint16_t> halves(12 * 9);
    LstmArguments a = arguments_for(sequence, result);
    a.batch_sizes = batch_sizes.data();
    if (x) {
      a.x = x;
      a.id_type = IdType::int32;
    }
    lstm_forward(of.data(), of.size(), a);
    const Result floats = result;
    a.data_type = DataType::float16;
    a.y = halves.data();
    if (a.id_type != IdType::none) {
      lstm_forward(of.data(), of.size(), a);
      std::vector<uint16_t> expected(halves.size());
      narrow(floats.y.data(), 9 * 9, DataType::float16, expected.data());
      CHECK_SAME(halves, expected);
    }
    return floats;
  };
  for_each_isa([&](std::string_view) {
    const Result expected = run(twin, one_hot(s), nullptr);
    check_same(run(packed, s, nullptr), expected);
    check_same(run(packed, s, short_ids.data()), expected);
  });
}

TEST(an_lstm_takes_ids) {
  const SourceStack stack = random_stack(shape_of(23, 9, 4, 2), Weights::any, 181);
  const HeldStack held = with_tables(stack, kTable, 182).held();
  const Lstm lstm(held.shape, held.views().data());
  CHECK(lstm.takes_ids() && lstm.shape().input_size == 23);
  const Sequence s = random_ids(stack.shape, 6, 3, 183);
  const std::vector<int32_t> short_ids(s.ids.begin(), s.ids.end());
  for_each_isa([&](std::string_view) {
    const Result expected = forward(lstm, s);
    const auto check = [&](const auto &run) {
      State state(stack.shape, 3);
      std::copy(s.h0.begin(), s.h0.end(), state.h());
      std::copy(s.c0.begin(), s.c0.end(), state.c());
      std::vector<float> y(expected.y.size());
      run(state, y.data());
      CHECK_SAME(y, expected.y);
      CHECK_SAME(std::vector<float>(state.c(), state.c() + expected.c.size()), expected.c);
    };
    check([&](State &state, float *y) { lstm.forward_ids(s.ids.data(), 6, 3, state, y); });
    check([&](State &state, float *y) { lstm.forward_ids(short_ids.data(), 6, 3, state, y); });
    check([&](State &state, float *y) {
      for (int64_t t = 0; t < 6; ++t)
        lstm.step_ids(short_ids.data() + t * 3, state, y + t * 3 * 4);
    });
    check([&](State &state, float *y) {
      std::vector<int64_t> by_row(3 * 8, -1); // [row, time], with gaps
      for (int64_t i = 0; i < 18; ++i)
        by_row[static_cast<size_t>(i % 3 * 8 + i / 3)] = s.ids[static_cast<size_t>(i)];
      ForwardOptions options;
      options.x_row_stride = 8;
      options.x_time_stride = 1;
      lstm.forward_ids(by_row.data(), 6, 3, state, y, options);
    });
  });
}

TEST(ids_out_of_range_change_nothing) {
  for_each_stack([](const SourceStack &tables, const SourceStack &) {
    const auto packed = tables.packed();
    Sequence s = random_ids(tables.shape, 4, 3, 184);
    for (int64_t wrong : {int64_t{-1}, int64_t{23}, std::numeric_limits<int64_t>::min(),
                          std::numeric_limits<int64_t>::max(), int64_t{1} << 32}) {
      const int64_t good = s.ids[3 * 3 + 1];
      s.ids[3 * 3 + 1] = wrong;
      Result result;
      const LstmArguments a = arguments_for(s, result);
      const Result before = result;
      CHECK_THROWS(
          lstm_forward(packed.data(), packed.size(), a),
          check::text("token ids must be in 0..22, got ", wrong, " at time step 3 of row 1"));
      check_same(result, before);
      s.ids[3 * 3 + 1] = good;
    }
    // Of rows that have ended, ids are not looked at.
    const std::vector<int64_t> lengths = {4, 3, 4};
    const Result expected = forward(packed, s, 1, lengths);
    s.ids[3 * 3 + 1] = -100;
    check_same(forward(packed, s, 1, lengths), expected);
  });
}

TEST(inputs_of_the_other_kind_are_refused) {
  const SourceStack floats = random_stack(shape_of(5, 9), Weights::any, 185);
  const auto packed = with_tables(floats, kTable, 186).packed(), plain = floats.packed();
  const Sequence s = random_ids(floats.shape, 2, 3, 187);
  CHECK_THROWS(forward(packed, one_hot(s)), "this LSTM reads token ids");
  CHECK_THROWS(forward(plain, s), "this LSTM reads values");
  Result result;
  CHECK_THROWS(explain(plain.data(), plain.size(), arguments_for(s, result)), "reads values");
  const CallPlan plan = explain(packed.data(), packed.size(), arguments_for(s, result));
  CHECK(plan.matrices[0].ids == 5 && plan.matrices[1].ids == 0);
  CHECK(describe(plan)[2] == "weight_ih_l0: table of 5 token ids; float32");
}

// Tables where there can be none, and such as are none.
TEST(packing_refuses_them) {
  const SourceStack stack = random_stack(shape_of(5, 9, 3, 2, 2, kFloat32), Weights::any, 188);
  const auto refused = [](const SourceStack &of, const std::string &message) {
    CHECK_THROWS(of.packed(), message);
  };
  SourceStack wrong = stack;
  wrong.layers[0].ih.precision = kTable;
  refused(wrong, "weight_ih_l0_reverse: the first layer's weight_ih of both directions");
  wrong = with_tables(stack, kTable, 189);
  wrong.layers[2].ih.precision = kTable;
  refused(wrong, "weight_ih_l1: only weight_ih of the first layer can be a table");
  wrong = with_tables(stack, kHalfTable, 189);
  wrong.layers[1].hr.precision = kTable;
  refused(wrong, "weight_hr_l0_reverse: only weight_ih of the first layer can be a table");
  for (Precision table : kTables) {
    wrong = with_tables(stack, table, 189);
    wrong.layers[1].ih.weights[7] = std::numeric_limits<float>::infinity(); // of id 2
    refused(wrong, "weight_ih_l0_reverse: weights must be finite, those of token id 2 are not");
  }
  const HeldStack held = with_tables(stack, kTable, 189).held();
  std::vector<CellWeights> cells = held.views();
  const WeightMatrix v = cells[0].hh;
  cells[0].ih.rank = 3;
  cells[0].ih.v = &v;
  CHECK_THROWS(PackPlan(held.shape, cells.data()), "weight_ih_l0: a table has no factors");
}

} // namespace
} // namespace lstm_fastkernels
