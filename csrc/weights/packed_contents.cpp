#include "weights/packed_contents.h"

#include <cmath>

#include "common/fail.h"

namespace lstm_fastkernels {
namespace {

// Refuses values for which good(value) does not hold, and such that are not 0 in rows of padding:
// floats [tiles][count][rows of a tile].
template <class Good>
void check_floats(const std::string &name, const MatrixShape &shape, int64_t height, int64_t count,
                  const void *values, const std::string &what, const Good &good) {
  const int64_t tile_rows = kStripsPerTile * height;
  for (int64_t i = 0; i < shape.num_tiles(height) * count * tile_rows; ++i) {
    const float value = read<float>(static_cast<const uint8_t *>(values), i);
    const int64_t row = shape.source_row(i / tile_rows / count, i % tile_rows, height);
    if (row < 0 && value != 0)
      refuse_packed(name, what + " of padding must be zero");
    if (row >= 0 && !good(value))
      refuse_packed(name, what + " of row " + std::to_string(row) + " is not possible");
  }
}

} // namespace

void refuse_packed(const std::string &name, const std::string &what) {
  fail("packed weights: " + name + ": " + what);
}

PackedRows::PackedRows(const std::string &name, const MatrixShape &shape, int64_t height)
    : name_(name), shape_(shape), height_(height),
      rows_(static_cast<size_t>(shape.num_strips(height) * height)) {}

Proof PackedRows::prove(bool pair_safe) const {
  Proof proof;
  proof.pair_safe = pair_safe;
  const int64_t tile_rows = kStripsPerTile * height_;
  for (int64_t i = 0; i < count(); ++i) {
    const RowTotals &row = (*this)[i];
    if (row.magnitude && shape_.source_row(i / tile_rows, i % tile_rows, height_) < 0)
      refuse_packed(name_, "weights of padding must be zero");
    proof.include(row.sum, row.magnitude);
  }
  return proof;
}

void PackedRows::check_scales(const void *scales, bool is_float, int64_t count) const {
  check_floats(name_, shape_, height_, count, scales, "scale", [&](float scale) {
    return is_float ? scale == 1.0f : std::isfinite(scale) && scale >= 0;
  });
}

void check_bias(const std::string &name, const MatrixShape &rows, int64_t height,
                const void *bias) {
  check_floats(name, rows, height, 1, bias, "value",
               [](float value) { return std::isfinite(value); });
}

} // namespace lstm_fastkernels
