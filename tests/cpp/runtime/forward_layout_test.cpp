// The same sequence in other layouts and types: lengths, contiguous rows, strides, half precision.
#include <algorithm>

#include "check.h"
#include "lstm_fastkernels/data_type.h"
#include "reference.h"
#include "stack.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

template <class Test> void for_each_shape(const Test &test) {
  for (int64_t layers : {1, 2})
    for (int64_t directions : {1, 2})
      for (int64_t proj : {0, 4}) {
        WITH("layers ", layers, " directions ", directions, " proj ", proj);
        const TypedShape shape = shape_of(7, 9, proj, layers, directions);
        test(shape, random_stack(shape, Weights::any, 21));
      }
}

void run(const std::vector<uint8_t> &packed, const LstmArguments &a) {
  lstm_forward(packed.data(), packed.size(), a);
}

TEST(rows_of_other_lengths_are_as_alone) {
  const std::vector<int64_t> all_lengths[] = {
      {6, 1, 3, 6, 2}, {1, 1, 1, 1, 1}, {6, 6, 6, 6, 6}, {1, 2, 3, 4, 5}, {5, 4, 3, 2, 1}};
  for_each_shape([&](const LstmShape &shape, const SourceStack &stack) {
    const auto packed = stack.packed();
    const Sequence sequence = random_sequence(shape, 6, 5, 22);
    for (const auto &lengths : all_lengths) {
      WITH("lengths from ", lengths[0], ", ", lengths[1]);
      const Result expected = reference_forward(stack, sequence, lengths);
      for_each_isa([&](std::string_view) {
        const Result found = forward(packed, sequence, 1, lengths);
        CHECK_SAME(found.y, expected.y);
        CHECK_SAME(found.h, expected.h);
        CHECK_SAME(found.c, expected.c);
        for (int64_t row = 0; row < sequence.B; ++row) {
          WITH("row ", row);
          const int64_t length = lengths[static_cast<size_t>(row)];
          const Result one = forward(packed, sequence.row(row, length));
          CHECK_SAME(found.row(sequence, row, length).y, one.y);
          CHECK_SAME(found.row(sequence, row, length).h, one.h);
          CHECK_SAME(found.row(sequence, row, length).c, one.c);
        }
      });
    }
  });
}

// Rows active at each time step, out of [T, B, columns].
std::vector<float> contiguous(const std::vector<float> &padded, int64_t B, int64_t columns,
                              const std::vector<int64_t> &batch_sizes) {
  std::vector<float> rows;
  for (size_t t = 0; t < batch_sizes.size(); ++t) {
    const auto step = padded.begin() + static_cast<int64_t>(t) * B * columns;
    rows.insert(rows.end(), step, step + batch_sizes[t] * columns);
  }
  return rows;
}

TEST(contiguous_rows_are_as_padded) {
  const std::vector<int64_t> lengths = {5, 5, 3, 2, 2, 1}, batch_sizes = {6, 5, 3, 2, 2};
  for_each_shape([&](const LstmShape &shape, const SourceStack &stack) {
    const auto packed = stack.packed();
    const Sequence sequence = random_sequence(shape, 5, 6, 23);
    const std::vector<float> x = contiguous(sequence.x, 6, shape.input_size, batch_sizes);
    for_each_isa([&](std::string_view) {
      const Result padded = forward(packed, sequence, 1, lengths);
      Result result;
      LstmArguments a = arguments_for(sequence, result);
      std::vector<float> y = contiguous(result.y, 6, sequence.y_columns(), batch_sizes);
      a.batch_sizes = batch_sizes.data();
      a.x = x.data();
      a.y = y.data();
      a.x_time_stride = a.y_time_stride = -1;
      run(packed, a);
      CHECK_SAME(y, contiguous(padded.y, 6, sequence.y_columns(), batch_sizes));
      CHECK_SAME(result.h, padded.h);
      CHECK_SAME(result.c, padded.c);
    });
  });
}

// [T, B, columns] with these strides, and marks between; only the last row's tail is cut off.
std::vector<float> spread(const std::vector<float> &from, int64_t T, int64_t B, int64_t columns,
                          int64_t time_stride, int64_t row_stride) {
  std::vector<float> to(static_cast<size_t>((T - 1) * time_stride + (B - 1) * row_stride + columns),
                        777.0f);
  for (int64_t t = 0; t < T; ++t)
    for (int64_t row = 0; row < B; ++row)
      std::copy_n(from.begin() + (t * B + row) * columns, columns,
                  to.begin() + t * time_stride + row * row_stride);
  return to;
}

TEST(strides_do_not_matter) {
  const int64_t T = 4, B = 3;
  for_each_shape([&](const LstmShape &shape, const SourceStack &stack) {
    const auto packed = stack.packed();
    const Sequence sequence = random_sequence(shape, T, B, 24);
    const int64_t in = shape.input_size, out = sequence.y_columns();
    for (bool batch_first : {false, true})
      for (int64_t gap : {0, 1, 5}) {
        WITH("batch_first ", batch_first, " gap ", gap);
        const auto time_stride = [&](int64_t n) { return batch_first ? n + gap : B * (n + gap); };
        const auto row_stride = [&](int64_t n) { return batch_first ? T * (n + gap) : n + gap; };
        for_each_isa([&](std::string_view) {
          const Result expected = forward(packed, sequence);
          Result result;
          LstmArguments a = arguments_for(sequence, result);
          a.x_time_stride = time_stride(in);
          a.x_row_stride = row_stride(in);
          a.y_time_stride = time_stride(out);
          a.y_row_stride = row_stride(out);
          const auto x = spread(sequence.x, T, B, in, a.x_time_stride, a.x_row_stride);
          auto y = spread(result.y, T, B, out, a.y_time_stride, a.y_row_stride);
          a.x = x.data();
          a.y = y.data();
          run(packed, a);
          CHECK_SAME(y, spread(expected.y, T, B, out, a.y_time_stride, a.y_row_stride));
          CHECK_SAME(result.c, expected.c);
        });
      }
  });
}

std::vector<uint16_t> narrowed(const std::vector<float> &from, DataType type) {
  std::vector<uint16_t> to(from.size());
  narrow(from.data(), static_cast<int64_t>(from.size()), type, to.data());
  return to;
}

std::vector<float> rounded(const std::vector<float> &from, DataType type) {
  std::vector<float> to(from.size());
  widen(narrowed(from, type).data(), type, static_cast<int64_t>(from.size()), to.data());
  return to;
}

TEST(half_precision_is_widened_and_narrowed) {
  for_each_shape([](const LstmShape &shape, const SourceStack &stack) {
    const auto packed = stack.packed();
    for (DataType type : {DataType::float16, DataType::bfloat16}) {
      WITH("type ", static_cast<int>(type));
      Sequence sequence = random_sequence(shape, 3, 2, 25);
      const auto x = narrowed(sequence.x, type);
      const auto h0 = narrowed(sequence.h0, type), c0 = narrowed(sequence.c0, type);
      sequence.x = rounded(sequence.x, type);
      for_each_isa([&](std::string_view) {
        Sequence widened = sequence;
        Result wide_state;
        LstmArguments a = arguments_for(widened, wide_state);
        std::vector<uint16_t> y(wide_state.y.size()), h(wide_state.h.size()),
            c(wide_state.c.size());
        a.x = x.data();
        a.y = y.data();
        a.data_type = type;
        run(packed, a);
        Result expected = forward(packed, widened);
        CHECK_SAME(y, narrowed(expected.y, type));
        CHECK_SAME(wide_state.h, expected.h);
        CHECK_SAME(wide_state.c, expected.c);

        a.state_type = type;
        a.h0 = h0.data();
        a.c0 = c0.data();
        a.h_n = h.data();
        a.c_n = c.data();
        run(packed, a);
        widened.h0 = rounded(widened.h0, type);
        widened.c0 = rounded(widened.c0, type);
        expected = forward(packed, widened);
        CHECK_SAME(y, narrowed(expected.y, type));
        CHECK_SAME(h, narrowed(expected.h, type));
        CHECK_SAME(c, narrowed(expected.c, type));
      });
    }
  });
}

} // namespace
} // namespace lstm_fastkernels
