// Checks the form for CUDA devices: whatever kernels take for an index, a length or proven.
#include <algorithm>
#include <string>

#include "common/rounding.h"
#include "cuda/host/device_stack.h"
#include "weights/packed_contents.h"
#include "weights/packed_int4.h"
#include "weights/weight_scan.h"

namespace lstm_fastkernels {
namespace cuda {
namespace {

// The row of a fragment's byte: weight_byte the other way round.
int64_t row_of(Arithmetic arithmetic, int64_t byte) {
  if (arithmetic == Arithmetic::float32)
    return byte / (kFloatColumns * int64_t{sizeof(float)});
  return byte / 64 + byte / 4 % 2 * (kBandHeight / 2);
}

// A fragment that ends past the matrix's columns.
void check_padding(const PackedRows &rows, Arithmetic arithmetic, const uint8_t *fragment,
                   int64_t left) {
  for (int64_t k = left; k < columns_per_fragment(arithmetic); ++k)
    for (int64_t row = 0; row < kBandHeight; ++row)
      if (!all_zero(fragment + weight_byte(arithmetic, row, k), 1,
                    arithmetic == Arithmetic::float32 ? 4 : 1))
        refuse_packed(rows.name(), "weights of padding must be zero");
}

template <class Scan> void scan_bands(const DeviceMatrix &m, Scan &scan, PackedRows &rows) {
  const Arithmetic arithmetic = m.arithmetic();
  const int64_t width = columns_per_fragment(arithmetic), columns = rows.shape().columns;
  uint32_t next = 0;
  for (int64_t band = 0; band < rows.shape().num_strips(kBandHeight); ++band) {
    const uint32_t end = m.starts[band + 1];
    if (m.starts[band] != next || end < next || end > m.num_fragments)
      refuse_packed(rows.name(), "bands must follow each other within its " +
                                     std::to_string(m.num_fragments) + " fragments");
    for (int64_t last = -1; next < end; ++next) {
      const uint8_t *const fragment = m.fragments + int64_t{next} * Scan::kBytes;
      const int64_t column = m.columns[next], left = columns - column * width;
      if (left <= 0 || column <= last)
        refuse_packed(rows.name(), "columns must increase within a band and be among its " +
                                       std::to_string(columns));
      last = column;
      check_padding(rows, arithmetic, fragment, left);
      scan.add(fragment);
    }
    rows.take(scan, [&](int64_t byte) { return band * kBandHeight + row_of(arithmetic, byte); });
  }
  if (next != m.num_fragments)
    refuse_packed(rows.name(),
                  "bands must take all of its " + std::to_string(m.num_fragments) + " fragments");
}

// What a zero point multiplies, of 4-bit weights: every band has all of its fragments.
void check_int4(const DeviceMatrix &m, const PackedRows &rows) {
  const int64_t groups = m.scale_groups, fragments = divide_up(m.num_columns, kFragmentColumns);
  rows.check_scales(m.scales, false, groups);
  for (int64_t i = 0; i < rows.count(); ++i) {
    const int64_t band = i / kBandHeight, row = i % kBandHeight;
    const auto weight_sum = [&](int64_t group) {
      int sum = 0;
      for (int64_t f = group * m.scale_fragments;
           f < std::min<int64_t>((group + 1) * m.scale_fragments, fragments); ++f)
        for (int64_t k = 0; k < kFragmentColumns; ++k) {
          const auto weight =
              static_cast<int8_t>(m.fragments[(band * fragments + f) * kFragmentBytes +
                                              weight_byte(Arithmetic::int4, row, k)]);
          if (weight < -kInt4Zero || weight >= kInt4Zero)
            refuse_packed(rows.name(), "weights must be in -8..7");
          sum += weight;
        }
      return sum;
    };
    const auto scale = [&](int64_t group) {
      return m.scales[(i / kTileHeight * groups + group) * kTileHeight + i % kTileHeight];
    };
    if (reinterpret_cast<const float *>(m.row_sums)[i] != int4_row_sum(groups, weight_sum, scale))
      refuse_packed(rows.name(), "its row sums are not those of its weights");
  }
}

template <class Scan>
void check_matrix(const DeviceMatrix &m, const MatrixShape &shape, const std::string &name) {
  PackedRows rows(name, shape, kBandHeight);
  Scan scan;
  scan_bands(m, scan, rows);
  if (m.activation_max != activation_max(m.precision, rows.prove(scan)))
    refuse_packed(name, "its weights need another activation range");
  if (m.arithmetic() == Arithmetic::int4)
    return check_int4(m, rows);
  for (int64_t i = 0; has_zero_points(m.arithmetic()) && i < rows.count(); ++i)
    if (m.row_sums[i] != rows[i].sum)
      refuse_packed(name, "its row sums are not those of its weights");
  rows.check_scales(m.scales, m.arithmetic() == Arithmetic::float32);
}

} // namespace

void check_packed(const void *header, size_t header_bytes, const void *packed,
                  size_t packed_bytes) {
  const PackedStack stack(header, header_bytes, packed, packed_bytes);
  check_stack(stack.shape, stack.layers, kBandHeight,
              [](const DeviceMatrix &m, const MatrixShape &shape, const std::string &name) {
                if (m.arithmetic() == Arithmetic::float32)
                  check_matrix<FloatScan<bytes_per_fragment(Arithmetic::float32)>>(m, shape, name);
                else
                  check_matrix<IntegerScan<bytes_per_fragment(Arithmetic::any8)>>(m, shape, name);
              });
}

} // namespace cuda
} // namespace lstm_fastkernels
