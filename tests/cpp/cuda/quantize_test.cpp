// The rows that a device quantizes are those of the CPU's kernels.
#include <algorithm>
#include <limits>

#include "check.h"
#include "cuda/kernels/plain_kernels.h"
#include "kernels/implementations.h"
#include "stack.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Quantized rows in host memory, which the emulator takes for a device's.
struct HeldRows {
  std::vector<uint8_t> data;
  std::vector<float> scales;
  std::vector<int32_t> zero_points;

  HeldRows(int64_t rows, int64_t stride)
      : data(static_cast<size_t>(rows * stride), 0xa5), scales(static_cast<size_t>(rows)),
        zero_points(scales.size()) {}
};

HeldRows on_device(const std::vector<float> &values, int64_t rows, const cuda::RowTarget &target) {
  const int64_t stride = cuda::quantized_bytes(target.arithmetic, target.columns);
  HeldRows held(rows, stride);
  cuda::SideBySide<cuda::QuantizeArguments> all;
  cuda::QuantizeArguments &a = all.of[all.count++];
  a.rows.batch = a.rows.count = a.count = rows;
  a.rows.time_steps = 1;
  a.in.addressing = Plane::Addressing::chunk;
  a.in.base = reinterpret_cast<uint8_t *>(const_cast<float *>(values.data()));
  a.in.row_bytes = target.columns * int64_t{sizeof(float)};
  a.target = target;
  a.out = {held.data.data(), stride, held.scales.data(), held.zero_points.data()};
  cuda::quantize_rows(all, nullptr);
  return held;
}

HeldRows on_cpu(const std::vector<float> &values, int64_t rows, const cuda::RowTarget &target) {
  Matrix matrix;
  matrix.arithmetic = target.arithmetic;
  matrix.activation_max = target.activation_max;
  const int64_t stride = cuda::quantized_bytes(target.arithmetic, target.columns);
  HeldRows held(rows, stride);
  for (int64_t row = 0; row < rows; ++row) {
    const auto i = static_cast<size_t>(row);
    active_kernels().quantize_row(
        values.data() + row * target.columns, target.columns, target.kind, matrix,
        {held.data.data() + row * stride, stride, &held.scales[i], &held.zero_points[i]});
  }
  return held;
}

void check_rows(const std::vector<float> &values, int64_t columns) {
  const int64_t rows = static_cast<int64_t>(values.size()) / columns;
  for (Arithmetic arithmetic : {Arithmetic::any8, Arithmetic::signed16, Arithmetic::float32})
    for (RowKind kind : {RowKind::any, RowKind::bounded}) {
      const int32_t most = arithmetic == Arithmetic::any8 ? 255 : 20011;
      const cuda::RowTarget target{kind, arithmetic, static_cast<int32_t>(columns), most};
      const HeldRows found = on_device(values, rows, target);
      const HeldRows expected = on_cpu(values, rows, target);
      WITH("columns ", columns, " arithmetic ", static_cast<int>(arithmetic), " bounded ",
           kind == RowKind::bounded);
      CHECK_SAME(found.scales, expected.scales);
      CHECK(found.zero_points == expected.zero_points);
      const int64_t stride = cuda::quantized_bytes(arithmetic, columns);
      const int64_t bytes = columns * activation_bytes(arithmetic);
      for (int64_t row = 0; row < rows; ++row) {
        WITH("row ", row);
        const auto at = static_cast<std::ptrdiff_t>(row * stride);
        CHECK(std::equal(found.data.begin() + at, found.data.begin() + at + bytes,
                         expected.data.begin() + at));
      }
    }
}

TEST(random_rows) {
  for (int64_t columns : kAwkward) {
    std::vector<float> rows;
    Random random(static_cast<uint64_t>(columns));
    for (float size : {1e-30f, 1e-3f, 0.5f, 1.0f, 7.0f, 1e38f})
      for (const auto &[lo, hi] :
           {std::pair(-1.0f, 1.0f), {0.1f, 1.0f}, {-1.0f, -0.1f}, {-0.001f, 1.0f}, {-1.0f, 0.3f}}) {
        const auto row = random_reals(columns, lo * size, hi * size, random.bits());
        rows.insert(rows.end(), row.begin(), row.end());
      }
    check_rows(rows, columns);
  }
}

TEST(random_bits) {
  for (int64_t columns : {2, 5, 33}) {
    Random random(static_cast<uint64_t>(columns) + 9);
    std::vector<float> rows;
    for (int64_t i = 0; i < 400 * columns; ++i)
      rows.push_back(float_of(static_cast<uint32_t>(random.bits())));
    check_rows(rows, columns);
  }
}

// One value, alone or throughout, from the smallest to the largest and beyond.
TEST(rows_of_one_value) {
  for (int64_t columns : {1, 31, 40}) {
    std::vector<float> rows;
    for (float size : {0.0f, -0.0f, 1e-45f, 1e-38f, 0.99e-30f, 1e-30f, 0x1.fdp-93f, 0x1.fep-93f,
                       0x1.ffp-93f, 1.0f / 32767, 1.5f / 32767, 1.0f, 3.4e38f, kInfinity,
                       std::numeric_limits<float>::quiet_NaN()})
      for (float sign : {1.0f, -1.0f}) {
        rows.insert(rows.end(), static_cast<size_t>(columns), 0.0f);
        rows[rows.size() - static_cast<size_t>(columns / 2 + 1)] = sign * size;
        rows.insert(rows.end(), static_cast<size_t>(columns), sign * size);
      }
    check_rows(rows, columns);
  }
}

} // namespace
} // namespace lstm_fastkernels
