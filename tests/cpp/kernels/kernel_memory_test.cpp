// Kernels stay within a matrix's sections, each with a page behind it that cannot be read, and
// within rows of activations and scratch memory that end at such a page.
#include "check.h"
#include "guarded.h"
#include "kernels/implementations.h"
#include "rows.h"
#include "stack.h"
#include "support.h"
#include "weights/packed.h"

namespace lstm_fastkernels {
namespace {

std::vector<uint8_t> bytes(const uint8_t *from, int64_t count) {
  return from ? std::vector<uint8_t>(from, from + count) : std::vector<uint8_t>();
}

class GuardedMatrix {
public:
  explicit GuardedMatrix(const Matrix &m)
      : tiles_(bytes(m.tiles, m.num_tiles * m.tile_bytes())),
        slices_(bytes(m.slices, divide_up(m.num_tiles * kStripsPerTile, kSliceStrips) * 16)),
        columns_(bytes(m.columns, m.positions * kSliceStrips * 2)),
        blocks_(bytes(m.blocks, m.positions * kSliceStrips * block_bytes(m.arithmetic))),
        row_sums_(bytes(m.row_sums, has_zero_points(m.arithmetic)
                                        ? m.num_tiles * kTileRows * (m.wide_row_sums ? 4 : 2)
                                        : 0)),
        scales_(bytes(m.scales, m.num_tiles * m.scale_groups * kTileRows * 4)), matrix_(m) {
    matrix_.tiles = tiles_.data();
    matrix_.slices = m.is_sparse() ? slices_.data() : nullptr;
    matrix_.columns = columns_.data();
    matrix_.blocks = blocks_.data();
    matrix_.row_sums = row_sums_.data();
    matrix_.scales = scales_.data();
  }
  const Matrix &view() const { return matrix_; }

private:
  Guarded<uint8_t> tiles_, slices_, columns_, blocks_, row_sums_, scales_;
  Matrix matrix_;
};

// Rows of ones of exactly their size, and their scales.
class GuardedRows {
public:
  GuardedRows(const Matrix &target, int64_t rows, int64_t columns)
      : stride_(activation_row_bytes(target, columns)),
        data_(ones(target.arithmetic, rows * stride_)),
        scales_(std::vector<float>(static_cast<size_t>(rows), 1.0f)),
        zero_points_(std::vector<int32_t>(static_cast<size_t>(rows), 7)),
        scratch_(std::vector<uint8_t>(static_cast<size_t>(scratch_bytes(target, rows)))) {}
  ActivationRows view() const {
    return {data_.data(), stride_, scales_.data(), zero_points_.data(), scratch_.data()};
  }

private:
  static std::vector<uint8_t> ones(Arithmetic arithmetic, int64_t bytes) {
    std::vector<uint8_t> made(static_cast<size_t>(bytes));
    for (int64_t i = 0; i < bytes / activation_bytes(arithmetic); ++i)
      encode(made.data(), i, arithmetic, 1);
    return made;
  }

  int64_t stride_;
  Guarded<uint8_t> data_;
  Guarded<float> scales_;
  Guarded<int32_t> zero_points_;
  Guarded<uint8_t> scratch_;
};

void check_products(const Matrix &packed, int64_t columns, int64_t rows) {
  const GuardedMatrix matrix(packed);
  const GuardedRows x(packed, rows, columns);
  const std::vector<float> zeros(static_cast<size_t>(packed.num_tiles * kTileRows), 0.0f);
  const Guarded<float> bias(zeros);
  const int64_t width = packed.num_tiles * kTileRows;
  for (std::string_view isa : supported_isas()) {
    WITH("isa ", isa);
    const Guarded<float> out(std::vector<float>(zeros.size() * static_cast<size_t>(rows), -1.0f));
    kernels(isa).products(matrix.view(), all_tiles(matrix.view()),
                          reinterpret_cast<const uint8_t *>(bias.data()), rows, x.view(),
                          {out.data(), width});
    for (size_t i = 0; i < zeros.size(); ++i) // all rows are alike
      CHECK(out.data()[i] == out.data()[zeros.size() * static_cast<size_t>(rows - 1) + i]);
    kernels(isa).products(matrix.view(), all_tiles(matrix.view()), nullptr, rows, x.view(),
                          {out.data(), width});
  }
}

void check_step(const Matrix &packed, int64_t columns, int64_t rows) {
  const GuardedMatrix matrix(packed);
  const GuardedRows h_in(packed, rows, columns);
  const int64_t units = packed.num_tiles * kTileUnits;
  const std::vector<float> marks(static_cast<size_t>(rows * units), 9.0f);
  const Guarded<float> gates(std::vector<float>(marks.size() * 4, 0.5f));
  for (std::string_view isa : supported_isas()) {
    WITH("isa ", isa);
    const Guarded<float> c(marks), h(marks);
    const StepArguments a =
        step_arguments(packed, rows, h_in.view(), gates.data(), c.data(), h.data());
    kernels(isa).step(matrix.view(), all_tiles(matrix.view()), a);
    for (int64_t unit = 0; unit < units; ++unit)
      CHECK(h.data()[unit] != 9.0f && h.data()[unit] == h.data()[(rows - 1) * units + unit]);
  }
}

TEST(kernels_stay_within_their_memory) {
  for (Precision precision : kPrecisions)
    for (Weights weights : {Weights::pair_safe, Weights::any})
      for (float density : {0.0f, 0.3f, 1.0f})
        for (int64_t size : {1, 9, 33, 137})
          for (bool dense : {true, false}) {
            if (precision == kInt4 && (!dense || weights == Weights::any))
              continue; // there are no blocks, nor pairs
            if (precision == kFloat32 ? weights == Weights::any : dense && density < 1)
              continue; // the same weights; dense kernels read all of them
            WITH("precision ", precision_name(precision), " density ", density, " size ", size,
                 " dense ", dense);
            const TypedShape shape = shape_of(size, size, 0, 1, 1, precision);
            const SourceStack stack = in_blocks(random_stack(shape, weights, 91), {8, 4}, density);
            const auto memory = (dense ? as_dense(stack) : stack).packed();
            const Matrix packed = PackedStack(memory.data(), memory.size()).layers[0].hh;
            for (int64_t rows : {1, 2, 7, 12}) {
              check_products(packed, size, rows);
              check_step(packed, size, rows);
            }
          }
}

} // namespace
} // namespace lstm_fastkernels
