// The CUDA path in the layouts and types that a caller may have, and what it refuses.
#include <algorithm>

#include "check.h"
#include "lstm_fastkernels/cuda.h"
#include "lstm_fastkernels/data_type.h"
#include "on_device.h"
#include "stack.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

struct Outputs {
  std::vector<uint8_t> y, h, c;
};

// Runs the same arguments on the CPU and on the device, each into outputs of its own, which hold
// so many values of the arguments' types.
void check_as_on_cpu(const SourceStack &stack, LstmArguments a, int64_t y_values) {
  const int64_t states = stack.shape.num_layers * stack.shape.num_directions * a.batch_size;
  const auto bytes = [](int64_t values, DataType type) {
    return std::vector<uint8_t>(static_cast<size_t>(values * bytes_of(type)), 0x5a);
  };
  Outputs outputs[2];
  for (int i = 0; i < 2; ++i) {
    outputs[i].y = bytes(y_values, a.data_type);
    outputs[i].h = bytes(states * stack.shape.output_size(), a.state_type);
    outputs[i].c = bytes(states * stack.shape.hidden_size, a.state_type);
    a.y = outputs[i].y.data();
    a.h_n = outputs[i].h.data();
    a.c_n = outputs[i].c.data();
    if (i == 0) {
      const auto packed = stack.packed();
      lstm_forward(packed.data(), packed.size(), a);
    } else {
      StackOnDevice(stack).forward(a);
    }
  }
  CHECK_SAME(outputs[1].y, outputs[0].y);
  CHECK_SAME(outputs[1].h, outputs[0].h);
  CHECK_SAME(outputs[1].c, outputs[0].c);
}

template <class Test> void for_each_shape(const Test &test) {
  for (int64_t layers : {1, 2})
    for (int64_t directions : {1, 2})
      for (int64_t proj : {0, 4})
        for (Precision precision : kPrecisions) {
          WITH("layers ", layers, " directions ", directions, " proj ", proj, " precision ",
               precision_name(precision));
          const TypedShape shape = shape_of(7, 9, proj, layers, directions, precision);
          test(shape, random_stack(shape, Weights::any, 91));
        }
}

TEST(contiguous_rows) {
  const std::vector<int64_t> batch_sizes = {9, 8, 3, 2, 2};
  for_each_shape([&](const LstmShape &shape, const SourceStack &stack) {
    const Sequence sequence = random_sequence(shape, 5, 9, 92);
    Result unused;
    LstmArguments a = arguments_for(sequence, unused);
    a.batch_sizes = batch_sizes.data();
    a.x_time_stride = a.y_time_stride = -1;
    check_as_on_cpu(stack, a, (9 + 8 + 3 + 2 + 2) * sequence.y_columns());
  });
}

TEST(strides) {
  const int64_t T = 4, B = 3;
  const std::vector<int64_t> lengths = {2, 4, 1};
  for_each_shape([&](const LstmShape &shape, const SourceStack &stack) {
    const Sequence sequence = random_sequence(shape, T, B * 4, 93);
    Result unused;
    LstmArguments a = arguments_for(sequence, unused);
    a.batch_size = B;
    a.h0 = a.c0 = nullptr;
    const int64_t out = sequence.y_columns();
    for (bool batch_first : {false, true})
      for (bool with_lengths : {false, true}) {
        WITH("batch_first ", batch_first, " lengths ", with_lengths);
        a.lengths = with_lengths ? lengths.data() : nullptr;
        a.x_row_stride = batch_first ? T * (7 + 2) : 7 + 2;
        a.x_time_stride = batch_first ? 7 + 2 : B * (7 + 2);
        a.y_row_stride = batch_first ? T * (out + 3) : out + 3;
        a.y_time_stride = batch_first ? out + 3 : B * (out + 3);
        check_as_on_cpu(stack, a, T * B * (out + 3));
      }
  });
}

TEST(half_precision) {
  for_each_shape([](const LstmShape &shape, const SourceStack &stack) {
    const Sequence sequence = random_sequence(shape, 3, 2, 94);
    const auto narrowed = [](const std::vector<float> &from, DataType type) {
      std::vector<uint16_t> to(from.size());
      narrow(from.data(), static_cast<int64_t>(from.size()), type, to.data());
      return to;
    };
    for (DataType type : {DataType::float16, DataType::bfloat16})
      for (bool narrow_state : {false, true}) {
        WITH("type ", static_cast<int>(type), " narrow state ", narrow_state);
        const auto x = narrowed(sequence.x, type);
        const auto h0 = narrowed(sequence.h0, type), c0 = narrowed(sequence.c0, type);
        Result unused;
        LstmArguments a = arguments_for(sequence, unused);
        a.x = x.data();
        a.data_type = type;
        if (narrow_state) {
          a.h0 = h0.data();
          a.c0 = c0.data();
          a.state_type = type;
        }
        check_as_on_cpu(stack, a, 3 * 2 * sequence.y_columns());
      }
  });
}

TEST(one_step_in_every_layout) {
  for_each_shape([](const LstmShape &shape, const SourceStack &stack) {
    const Sequence sequence = random_sequence(shape, 1, 10, 88);
    std::vector<uint16_t> x(sequence.x.size());
    narrow(sequence.x.data(), static_cast<int64_t>(x.size()), DataType::bfloat16, x.data());
    Result unused;
    LstmArguments a = arguments_for(sequence, unused);
    a.x_row_stride = 7 + 3;
    a.y_row_stride = sequence.y_columns() + 5;
    a.batch_size = 7;
    a.h0 = a.c0 = nullptr;
    check_as_on_cpu(stack, a, 7 * a.y_row_stride);

    a = arguments_for(sequence, unused);
    a.x = x.data();
    a.data_type = DataType::bfloat16;
    const std::vector<int64_t> batch_sizes = {10};
    a.batch_sizes = batch_sizes.data();
    check_as_on_cpu(stack, a, 10 * sequence.y_columns());
  });
}

TEST(state_in_place) {
  for (int64_t T : {1, 4}) {
    WITH("T ", T);
    const TypedShape shape = shape_of(5, 20, 0, 2, 2);
    const SourceStack stack = random_stack(shape, Weights::any, 95);
    Sequence sequence = random_sequence(shape, T, 3, 96);
    const Result expected = forward(stack.packed(), sequence);
    Result found;
    LstmArguments a = arguments_for(sequence, found);
    a.h_n = sequence.h0.data();
    a.c_n = sequence.c0.data();
    StackOnDevice(stack).forward(a);
    CHECK_SAME(found.y, expected.y);
    CHECK_SAME(sequence.h0, expected.h);
    CHECK_SAME(sequence.c0, expected.c);
  }
}

TEST(an_empty_batch_does_nothing) {
  const TypedShape shape = shape_of(5, 20);
  LstmArguments a;
  a.time_steps = 3;
  StackOnDevice(random_stack(shape, Weights::any, 97)).forward(a);
}

TEST(what_does_not_fit_is_refused) {
  const TypedShape shape = shape_of(5, 20, 0, 2);
  const StackOnDevice stack(random_stack(shape, Weights::any, 98));
  const Sequence sequence = random_sequence(shape, 4, 3, 99);
  Result result;
  const LstmArguments good = arguments_for(sequence, result);
  const auto with = [&](const auto &change) {
    LstmArguments a = good;
    change(a);
    stack.forward(a);
  };
  const std::vector<int64_t> lengths = {1, 5, 2}, batch_sizes = {3, 3, 2, 1};
  CHECK_THROWS(with([](LstmArguments &a) { a.time_steps = 0; }), "time_steps must be at least 1");
  CHECK_THROWS(with([](LstmArguments &a) { a.batch_size = -1; }),
               "batch_size must not be negative");
  CHECK_THROWS(with([](LstmArguments &a) { a.batch_size = int64_t{1} << 31; }),
               "batch_size must be at most");
  CHECK_THROWS(with([](LstmArguments &a) { a.time_steps = (int64_t{1} << 32) / 3 + 1; }),
               "time_steps * batch_size must be at most 4294967296");
  CHECK_THROWS(with([](LstmArguments &a) { a.h0 = nullptr; }), "both h0 and c0");
  CHECK_THROWS(with([&](LstmArguments &a) { a.state_rows = lengths.data(); }),
               "state_rows are for the CPU");
  CHECK_THROWS(with([](LstmArguments &a) { a.y = nullptr; }), "must not be null");
  CHECK_THROWS(with([&](LstmArguments &a) { a.lengths = lengths.data(); }), "lengths must be in");
  CHECK_THROWS(with([&](LstmArguments &a) {
                 a.lengths = lengths.data();
                 a.batch_sizes = batch_sizes.data();
               }),
               "not both");

  DeviceMemory workspace(cuda::workspace_bytes(stack.view(), good));
  cuda::Queue queue;
  queue.workspace = workspace.data();
  queue.workspace_bytes = cuda::workspace_bytes(stack.view(), good) - 1;
  CHECK_THROWS(cuda::lstm_forward(stack.view(), good, queue), "the workspace must have");
  CHECK_THROWS(cuda::lstm_forward(stack.view(), good, {}), "the workspace must have");
  queue.workspace_bytes += 1;
  queue.workspace = workspace.data() + 16;
  CHECK_THROWS(cuda::lstm_forward(stack.view(), good, queue), "aligned to 256 bytes");
}

TEST(token_ids_are_refused) {
  const SourceStack stack = random_stack(shape_of(7, 9), Weights::any, 99);
  for (Precision table : kTables) {
    const HeldStack held = with_tables(stack, table, 100).held();
    CHECK_THROWS(cuda::PackPlan(held.shape, held.views().data()),
                 "weight_ih_l0: LSTMs that read token ids run on the CPU alone");
  }
  Result result;
  const Sequence ids = random_ids(stack.shape, 3, 2, 101);
  CHECK_THROWS(StackOnDevice(stack).forward(arguments_for(ids, result)),
               "LSTMs that read token ids run on the CPU alone");
}

} // namespace
} // namespace lstm_fastkernels
