// The persistent path, whatever choose() thinks of it, gives the bits of the CPU's kernels.
#include <algorithm>
#include <cmath>
#include <limits>

#include "check.h"
#include "common/schedule.h"
#include "lstm_fastkernels/data_type.h"
#include "orders.h"
#include "persistent_case.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

using cuda::PersistentShape;

TEST(persistent_in_every_order) {
  for (int64_t hidden : {40, 151})
    for (int64_t layers : {1, 3})
      for (int64_t directions : {1, 2}) {
        const bool small = hidden == 40;
        if (!small && layers == 3)
          continue;
        const Precision precision = layers == 1 && directions == 2 ? kInt16 : kInt8;
        WITH("hidden ", hidden, " layers ", layers, " directions ", directions, " precision ",
             precision_name(precision));
        const TypedShape shape = shape_of(7, hidden, 0, layers, directions, precision);
        const Case of(random_stack(shape, Weights::any, 111),
                      random_sequence(shape, small ? 7 : 3, small ? 3 : 9, 112));
        for_each_order([&] {
          for (const PersistentShape &s : shapes_of(hidden))
            of.check(s);
        });
      }
}

TEST(layers_of_every_kind) {
  for (int64_t directions : {1, 2}) {
    const TypedShape shape = shape_of(5, 40, 0, 4, directions);
    const Case of(random_stack(shape, Weights::any, 113), random_sequence(shape, 6, 5, 114),
                  {6, 1, 3, 5, 5});
    cuda::Plan plan = plan_of({grid_of(40, 1), grid_of(40, 2), grid_of(40, 1), cluster_of(40, 1)});
    for (size_t plain : {1, 2}) {
      plan.layers[plain].persistent = false;
      for_each_order([&] {
        for (int64_t steps : {0, 1, 4})
          of.check(plan, steps);
      });
    }
  }
}

// W_ih is none of a persistent block's business; the layers' blocks have an arithmetic each.
TEST(persistent_layers_of_other_precisions) {
  for (int64_t directions : {1, 2}) {
    const TypedShape shape = shape_of(5, 40, 0, 4, directions);
    const SourceStack wide = random_stack(shape_of(5, 40, 0, 4, directions, kInt16), Weights::any,
                                          151),
                      floats = random_stack(shape_of(5, 40, 0, 4, directions, kFloat32),
                                            Weights::any, 152);
    SourceStack stack = random_stack(shape, Weights::any, 153);
    cuda::Plan plan = plan_of(cluster_of(40, 1), 4);
    for (size_t cell = 0; cell < stack.layers.size(); ++cell) {
      const size_t layer = cell / static_cast<size_t>(directions);
      stack.layers[cell].ih = (cell % 2 ? wide : floats).layers[cell].ih;
      if (layer % 2) {
        stack.layers[cell].hh = wide.layers[cell].hh;
        plan.layers[layer].shape = of_arithmetic(grid_of(40, 1), Arithmetic::signed16);
      }
    }
    const Case of(stack, random_sequence(shape, 6, 9, 154), {6, 1, 3, 5, 5, 2, 2, 6, 4});
    for_each_order([&] {
      for (int64_t steps : {0, 1, 4})
        of.check(plan, steps);
    });
  }
}

// Rows that end early, or start late in reverse; steps at which none is active; one row alone.
TEST(persistent_rows_of_other_lengths) {
  const std::vector<int64_t> all_lengths[] = {{7, 1, 3, 6, 2, 1, 1, 4, 5},
                                              {1, 1, 1, 1, 1, 1, 1, 1, 1},
                                              {2, 5, 4, 1, 3, 2, 4, 5, 4},
                                              {1, 7, 1, 1, 1, 1, 1, 1, 1},
                                              {6, 6, 6, 6, 6, 6, 7, 7, 6}};
  for (int64_t layers : {1, 2})
    for (int64_t directions : {1, 2}) {
      const Precision precision = layers == directions ? kInt8 : kInt16;
      const TypedShape shape = shape_of(4, 20, 0, layers, directions, precision);
      const SourceStack stack = random_stack(shape, Weights::any, 115);
      for (const auto &lengths : all_lengths) {
        WITH("layers ", layers, " directions ", directions, " precision ",
             precision_name(precision), " lengths from ", lengths[0], ", ", lengths[1]);
        const Case of(stack, random_sequence(shape, 7, 9, 116), lengths);
        for (const PersistentShape &s : shapes_of(20))
          for (int64_t steps : {0, 1, 3})
            of.check(s, steps);
      }
    }
}

TEST(many_rows_of_other_lengths) {
  for (Precision precision : kArithmetics)
    for (int64_t B : {33, 64}) {
      const TypedShape shape = shape_of(4, 20, 0, 1, 2, precision);
      WITH("batch ", B);
      const Case of(random_stack(shape, Weights::any, 117), random_sequence(shape, 6, B, 119),
                    random_lengths(5, B, 118));
      for (const PersistentShape &s : {grid_of(20, 1), cluster_of(20, 1)})
        for (int64_t steps : {0, 2})
          of.check(s, steps);
    }
}

TEST(state_between_launches) {
  for (int64_t directions : {1, 2}) {
    const TypedShape shape = shape_of(3, 33, 0, 2, directions, directions == 1 ? kInt16 : kInt8);
    const Case of(random_stack(shape, Weights::any, 121), random_sequence(shape, 7, 9, 122));
    WITH("directions ", directions);
    for_each_order([&] {
      for (const PersistentShape &s : shapes_of(33))
        for (int64_t steps : {1, 3})
          of.check(s, steps);
    });
  }
}

// Packets of an earlier call are not taken for those of the next one, which bear the same numbers;
// nor are the headers, which tell of a row with NaNs.
TEST(a_workspace_is_used_again) {
  const TypedShape shape = shape_of(3, 40, 0, 1, 2);
  const SourceStack source = random_stack(shape, Weights::any, 136);
  const StackOnDevice on_device(source);
  const cuda::PackedStack &stack = on_device.view().packed();
  Result found;
  LstmArguments a = arguments_for(random_sequence(shape, 3, 4, 137), found);
  const Schedule schedule(a);
  const cuda::Plan plan = plan_of({of_rows(grid_of(40, 1), 4)});
  cuda::Queue queue;
  queue.workspace_bytes =
      static_cast<size_t>(cuda::workspace_of(stack, a, schedule, plan.chunk_rows));
  const DeviceMemory workspace(queue.workspace_bytes);
  queue.workspace = workspace.data();
  for_each_order([&] {
    for (uint64_t seed : {138, 139}) {
      Sequence sequence = random_sequence(shape, 3, 4, seed);
      if (seed == 138)
        sequence.h0[0] = sequence.h0[4 * 40] = std::numeric_limits<float>::quiet_NaN();
      a = arguments_for(sequence, found);
      cuda::run(stack, a, schedule, plan, queue);
      check_same(found, forward(source.packed(), sequence));
    }
  });
}

// Weights that are zero throughout in some fragments, bands, or units.
TEST(persistent_zeros) {
  const TypedShape shape = shape_of(3, 200, 0, 1, 1);
  SourceStack stack = random_stack(shape, Weights::any, 123);
  SourceMatrix &hh = stack.layers[0].hh;
  for (int64_t row = 0; row < hh.rows; ++row)
    for (int64_t column = 0; column < hh.columns; ++column) {
      const int64_t gate = row / 200, tile = row % 200 / 16, block = column / 32;
      const bool zero = tile == 3 || (gate == 2 && tile > 8) || block == 0 ||
                        (tile + gate) % 5 == block || (tile == 12 && block < 6);
      if (zero)
        hh.weights[static_cast<size_t>(row * hh.columns + column)] = 0.0f;
    }
  const Case of(stack, random_sequence(shape, 3, 9, 124));
  for (const PersistentShape &s : shapes_of(200))
    of.check(s);
  std::fill(hh.weights.begin(), hh.weights.end(), 0.0f);
  const Case of_none(stack, random_sequence(shape, 3, 3, 125));
  for (const PersistentShape &s : shapes_of(200))
    of_none.check(s);
}

// Sums as large as they get.
TEST(persistent_extreme_weights) {
  for (Precision precision : kArithmetics) {
    const TypedShape shape = shape_of(3, 250, 0, 1, 1, precision);
    SourceStack stack = random_stack(shape, Weights::any, 126);
    for (size_t i = 0; i < stack.layers[0].hh.weights.size(); ++i)
      stack.layers[0].hh.weights[i] = i / 250 % 2 ? 127.0f : -128.0f;
    for (float &scale : stack.layers[0].hh.scales)
      scale = 1e-4f;
    Sequence sequence = random_sequence(shape, 3, 2, 127);
    for (float h0 : {7.0f, -1e6f, 0.0f, 1e-6f}) {
      std::fill(sequence.h0.begin(), sequence.h0.end(), h0);
      WITH("h0 ", h0, " precision ", precision_name(precision));
      const Case of(stack, sequence);
      for (const PersistentShape &s : shapes_of(250))
        of.check(s);
    }
  }
}

TEST(persistent_non_finite_values) {
  const float kInf = std::numeric_limits<float>::infinity();
  const float kNan = std::numeric_limits<float>::quiet_NaN();
  for (int64_t directions : {1, 2}) {
    const TypedShape shape = shape_of(6, 20, 0, 2, directions, directions == 1 ? kInt16 : kInt8);
    const SourceStack stack = random_stack(shape, Weights::any, 128);
    for (int where : {0, 1, 2, 3}) {
      Sequence sequence = random_sequence(shape, 5, 4, 129);
      const size_t row = 2;
      if (where == 0)
        sequence.x[(2 * 4 + row) * 6 + 3] = kNan;
      else if (where == 1)
        sequence.h0[row * 20 + 17] = -kInf;
      else if (where == 2)
        sequence.c0[row * 20 + 19] = kInf;
      else
        sequence.x[(4 * 4 + row) * 6] = -kInf;
      WITH("directions ", directions, " in ", where);
      for (const auto &lengths :
           {std::vector<int64_t>{}, std::vector<int64_t>{2, 5, 4, 1}, {3, 1, 5, 5}}) {
        const Case of(stack, sequence, lengths);
        for (const PersistentShape &s : shapes_of(20))
          for (int64_t steps : {0, 2})
            of.check(s, steps);
      }
    }
  }
}

// A unit that becomes NaN by itself takes its row with it from the next step on. Here its sums are
// inf - inf where a row starts from a large h0, whose scale overflows with those of its weights.
TEST(a_unit_that_overflows) {
  const TypedShape shape = shape_of(2, 70, 0, 1, 2);
  const int64_t B = 35; // more than the rows whose NaNs are in one word
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < B; ++i)
    lengths.push_back(i % 4 + 3);
  for (size_t unit : {0, 16, 37, 69}) {
    SourceStack stack = random_stack(shape, Weights::any, 131);
    for (SourceLayer &layer : stack.layers)
      for (size_t gate = 0; gate < 4; ++gate)
        for (SourceMatrix *m : {&layer.ih, &layer.hh})
          m->scales[gate * 70 + unit] = 3e38f;
    Sequence sequence = random_sequence(shape, 6, B, 132);
    for (size_t i = 0; i < sequence.h0.size(); ++i)
      sequence.h0[i] *= i / 70 % 3 ? 1000.0f : 1.0f;
    WITH("unit ", unit);
    const Case of(stack, sequence, lengths);
    const std::vector<float> &y = of.expected().y;
    int alone = 0; // NaNs in rows that are not NaN
    for (size_t i = 0; i < y.size(); i += 70)
      alone += std::isnan(y[i + unit]) && !std::isnan(y[i + 1]);
    CHECK(alone > 5);
    for (const PersistentShape &s : shapes_of(70))
      for (int64_t steps : {0, 2})
        of.check(s, steps);
  }
}

// Packed sequences, rows with gaps in any order, half precision: outputs of both paths.
TEST(persistent_layouts) {
  const int64_t T = 5, B = 9;
  const std::vector<int64_t> lengths = {2, 4, 1, 5, 5, 3, 1, 2, 4};
  const std::vector<int64_t> batch_sizes = {9, 7, 5, 4, 2};
  const TypedShape shape = shape_of(6, 20, 0, 2, 2);
  const SourceStack stack = random_stack(shape, Weights::any, 133);
  const auto packed = stack.packed();
  const StackOnDevice on_device(stack);
  const Sequence sequence = random_sequence(shape, T, B, 134);
  const int64_t out = sequence.y_columns();
  const std::vector<float> x = random_reals(T * B * 8, -2, 2, 135);
  Result unused;
  LstmArguments a = arguments_for(sequence, unused);
  for (DataType type : {DataType::float32, DataType::float16, DataType::bfloat16})
    for (int layout : {0, 1, 2, 3}) {
      WITH("type ", static_cast<int>(type), " layout ", layout);
      std::vector<uint16_t> narrow_x(x.size());
      if (type != DataType::float32)
        narrow(x.data(), static_cast<int64_t>(x.size()), type, narrow_x.data());
      a.x = type == DataType::float32 ? static_cast<const void *>(x.data()) : narrow_x.data();
      a.data_type = type;
      const bool batch_first = layout == 1;
      a.x_row_stride = batch_first ? T * 8 : 8;
      a.x_time_stride = batch_first ? 8 : B * 8;
      a.y_row_stride = batch_first ? T * (out + 3) : out + 3;
      a.y_time_stride = batch_first ? out + 3 : B * (out + 3);
      a.lengths = layout == 2 ? lengths.data() : nullptr;
      a.batch_sizes = layout == 3 ? batch_sizes.data() : nullptr;
      const size_t bytes = static_cast<size_t>(T * B * (out + 3) * bytes_of(type));
      std::vector<uint8_t> expected(bytes, 0x5a);
      Result expected_states, states;
      const auto set_outputs = [&](std::vector<uint8_t> &y, Result &to) {
        to.h.assign(sequence.h0.size(), 1.0f);
        to.c.assign(sequence.c0.size(), 1.0f);
        a.y = y.data();
        a.h_n = to.h.data();
        a.c_n = to.c.data();
      };
      set_outputs(expected, expected_states);
      lstm_forward(packed.data(), packed.size(), a);
      for (const PersistentShape &s : shapes_of(20)) {
        WITH(name_of(s));
        std::vector<uint8_t> found(bytes, 0x5a);
        set_outputs(found, states);
        on_device.forward(a, plan_of({s, s}));
        CHECK_SAME(found, expected);
        CHECK_SAME(states.h, expected_states.h);
        CHECK_SAME(states.c, expected_states.c);
      }
    }
}

} // namespace
} // namespace lstm_fastkernels
