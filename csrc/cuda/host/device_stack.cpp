#include "cuda/host/device_stack.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "common/fail.h"
#include "common/rounding.h"
#include "weights/packed_int4.h"
#include "weights/packed_stack.h"

namespace lstm_fastkernels {
namespace cuda {
namespace {

struct MatrixOffsets {
  int64_t starts, columns, fragments, row_sums, scales;
};

uint32_t row_sum_bytes(Arithmetic arithmetic) {
  return has_zero_points(arithmetic) ? sizeof(int32_t) : 0;
}

// Which has no place for a table.
const WeightMatrix &multiplied(const WeightMatrix &source, const std::string &name) {
  if (is_table(source.precision))
    fail(name + ": LSTMs that read token ids run on the CPU alone");
  return source;
}

class MatrixPlan {
public:
  MatrixPlan(const MatrixShape &shape, const WeightMatrix &source, const std::string &name)
      : source_(shape, multiplied(source, name), name),
        arithmetic_(arithmetic_of(source.precision)) {
    record_.weights = source.precision.weights;
    record_.activations = source.precision.activations;
    record_.arithmetic = static_cast<uint32_t>(arithmetic_);
    record_.activation_max = activation_max(source.precision, source_.proof());
    record_.row_sum_bytes = row_sum_bytes(arithmetic_);
    record_.scale_columns = static_cast<uint32_t>(source_.is_int4() ? source_.group_size() : 0);
    record_.set_blocks(source);
    starts_.push_back(0);
    for (int64_t band = 0; band < shape.num_strips(kBandHeight); ++band) {
      std::vector<bool> used(static_cast<size_t>(divide_up(shape.columns, width())),
                             source_.is_int4());
      for_each_block(band, [&](const Panel &panel, int64_t k, int64_t) {
        used[static_cast<size_t>((panel.first_column + k) / width())] = true;
      });
      for (size_t column = 0; column < used.size(); ++column)
        if (used[column])
          columns_.push_back(static_cast<uint16_t>(column));
      starts_.push_back(static_cast<uint32_t>(columns_.size()));
    }
    record_.positions = starts_.back();
  }

  const MatrixRecord &record() const { return record_; }

  void write(uint8_t *base, const MatrixOffsets &at) const {
    for (size_t i = 0; i < starts_.size(); ++i)
      lstm_fastkernels::write(base + at.starts, static_cast<int64_t>(i), starts_[i]);
    for (size_t i = 0; i < columns_.size(); ++i)
      lstm_fastkernels::write(base + at.columns, static_cast<int64_t>(i), columns_[i]);
    for (int64_t band = 0; band + 1 < static_cast<int64_t>(starts_.size()); ++band)
      write_band(band, base + at.fragments);
    if (source_.is_int4())
      return write_int4(base, at);
    if (record_.row_sum_bytes)
      write_rows<int32_t>(base + at.row_sums, source_.shape(), kBandHeight, [&](int64_t row) {
        return source_.row_sums()[static_cast<size_t>(row)];
      });
    write_rows<float>(base + at.scales, source_.shape(), kBandHeight,
                      [&](int64_t row) { return source_.scale(row); });
  }

private:
  void write_int4(uint8_t *base, const MatrixOffsets &at) const {
    write_rows<float>(base + at.row_sums, source_.shape(), kBandHeight,
                      [&](int64_t row) { return source_.int4_row_sum(row); });
    write_row_values<float>(
        base + at.scales, source_.shape(), kBandHeight, source_.scale_groups(),
        [&](int64_t row, int64_t group) { return source_.group_scale(row, group); });
  }

  int64_t width() const { return columns_per_fragment(arithmetic_); }

  // Calls visit(panel, k, half) for the source's blocks of 8 x 4 that are not zero.
  template <class Visit> void for_each_block(int64_t band, const Visit &visit) const {
    for_each_strip(source_.shape(), band, [&](int64_t strip, int64_t half) {
      source_.for_each_block(strip, [&](const Panel &panel, int64_t k) { visit(panel, k, half); });
    });
  }

  void write_band(int64_t band, uint8_t *fragments) const {
    const auto begin = columns_.begin() + starts_[static_cast<size_t>(band)];
    const auto end = columns_.begin() + starts_[static_cast<size_t>(band) + 1];
    for_each_block(band, [&](const Panel &panel, int64_t k, int64_t half) {
      const int64_t column = panel.first_column + k;
      const auto found = std::lower_bound(begin, end, static_cast<uint16_t>(column / width()));
      if (found == end || *found != column / width())
        return; // another thread has written to the weights since they were planned
      uint8_t *fragment = fragments + (found - columns_.begin()) * bytes_per_fragment(arithmetic_);
      for (int64_t i = 0; i < panel.rows; ++i)
        for (int64_t j = 0; j < std::min<int64_t>(kBlockColumns, panel.columns - k); ++j)
          std::memcpy(fragment +
                          weight_byte(arithmetic_, half * kStripRows + i, column % width() + j),
                      panel.weights + (i * source_.stride() + k + j) * source_.weight_bytes(),
                      static_cast<size_t>(source_.weight_bytes()));
    });
  }

  MatrixSource source_;
  Arithmetic arithmetic_;
  MatrixRecord record_{};
  std::vector<uint32_t> starts_;
  std::vector<uint16_t> columns_;
};

// The layout that packed_stack.h asks for.
struct Layout {
  using Plan = MatrixPlan;
  using Offsets = MatrixOffsets;
  static constexpr Backend kBackend = Backend::cuda;
  static constexpr int64_t kHeight = kBandHeight;

  static Offsets place(Sections &sections, const MatrixShape &shape, const MatrixRecord &record) {
    const int64_t bands = shape.num_strips(kBandHeight), fragments = record.positions;
    Offsets at{};
    at.starts = sections.add((bands + 1) * int64_t{sizeof(uint32_t)});
    at.columns = sections.add(fragments * int64_t{sizeof(uint16_t)});
    at.fragments =
        sections.add(fragments * bytes_per_fragment(static_cast<Arithmetic>(record.arithmetic)));
    at.row_sums = sections.add(bands * kBandHeight * record.row_sum_bytes);
    at.scales =
        sections.add(bands * kBandHeight * record.scale_groups(shape) * int64_t{sizeof(float)});
    return at;
  }

  static void check(const MatrixShape &shape, const MatrixRecord &record) {
    precision_name(record.precision()); // throws where there is none
    const Arithmetic arithmetic = arithmetic_of(record.precision());
    if (record.arithmetic != static_cast<uint32_t>(arithmetic) || is_table(record.precision()))
      fail("packed weights: unknown arithmetic " + std::to_string(record.arithmetic));
    // What any weights allow, and the most that some do.
    const int32_t least = activation_max(record.precision(), {false, false, 0x7fffffff});
    const int32_t most = activation_max(record.precision(), {});
    if (record.activation_max < least || record.activation_max > most)
      fail("packed weights: activation range " + std::to_string(record.activation_max) +
           " is not possible");
    if (record.row_sum_bytes != row_sum_bytes(arithmetic))
      fail("packed weights: row sums of " + std::to_string(record.row_sum_bytes) +
           " bytes are not possible");
    if (arithmetic == Arithmetic::int4 ? !is_group_size(record.scale_columns)
                                       : record.scale_columns != 0)
      fail("packed weights: scales of " + std::to_string(record.scale_columns) +
           " columns are not possible");
    const bool is_int4 = arithmetic == Arithmetic::int4;
    if (record.blocks && (is_int4 || !is_block_shape(record.block_rows(), record.block_columns())))
      fail("packed weights: blocks of " + std::to_string(record.block_rows()) + " x " +
           std::to_string(record.block_columns()) + " are not possible");
    const int64_t fragments =
        shape.num_strips(kBandHeight) * divide_up(shape.columns, columns_per_fragment(arithmetic));
    if (record.positions > fragments || (is_int4 && record.positions != fragments))
      fail("packed weights: " + std::to_string(record.positions) + " fragments of " +
           std::to_string(fragments) + " are not possible");
  }
};

HostMatrix view(const MatrixShape &shape, const MatrixRecord &record, const uint8_t *base,
                const MatrixOffsets &at) {
  HostMatrix matrix;
  matrix.starts = reinterpret_cast<const uint32_t *>(base + at.starts);
  matrix.columns = reinterpret_cast<const uint16_t *>(base + at.columns);
  matrix.fragments = base + at.fragments;
  matrix.row_sums = reinterpret_cast<const int32_t *>(base + at.row_sums);
  matrix.scales = reinterpret_cast<const float *>(base + at.scales);
  matrix.scale_groups = static_cast<int32_t>(record.scale_groups(shape));
  matrix.scale_fragments = static_cast<int32_t>(record.scale_columns / kFragmentColumns);
  matrix.num_tiles = static_cast<int32_t>(shape.num_tiles(kBandHeight));
  matrix.num_columns = static_cast<int32_t>(shape.columns);
  matrix.activation_max = record.activation_max;
  matrix.precision = record.precision();
  matrix.num_fragments = record.positions;
  matrix.block_rows = record.block_rows();
  matrix.block_columns = record.block_columns();
  return matrix;
}

} // namespace

struct PackPlan::Plan : StackPlan<Layout> {
  using StackPlan::StackPlan;
};

PackPlan::PackPlan(const LstmShape &shape, const CellWeights *cells)
    : plan_(std::make_unique<const Plan>(shape, cells)) {}
PackPlan::~PackPlan() = default;
size_t PackPlan::bytes() const { return plan_->bytes(); }
void PackPlan::write(void *packed, size_t bytes) const { plan_->write(packed, bytes); }

size_t header_bytes(const LstmShape &shape) {
  validate(shape);
  return static_cast<size_t>(header_size(shape));
}

PackedStack::PackedStack(const void *header, size_t header_bytes, const void *packed,
                         size_t packed_bytes) {
  if (reinterpret_cast<uintptr_t>(packed) % 16)
    fail("packed weights: device memory must be aligned to 16 bytes");
  const uint8_t *base = static_cast<const uint8_t *>(packed);
  const auto add = [&](const LstmShape &of, int64_t layer, const LayerRecord &record,
                       const LayerOffsets<Layout> &at) {
    PackedLayer added;
    for_each_part(of, layer, record.ranks, [&](const MatrixShape &part_of, int kind, int part) {
      FactoredMatrix &whole = matrix_of(added, static_cast<MatrixKind>(kind));
      whole.rank = record.ranks[kind];
      (part ? whole.v : static_cast<HostMatrix &>(whole)) =
          view(part_of, record.parts[kind][part], base, at.parts[kind][part]);
    });
    added.bias = reinterpret_cast<const float *>(base + at.bias);
    layers.push_back(added);
  };
  shape = read_stack<Layout>(header, header_bytes, packed_bytes, add);
}

DeviceStack::DeviceStack(const void *header, size_t header_bytes, const void *packed,
                         size_t packed_bytes)
    : packed_(std::make_shared<PackedStack>(header, header_bytes, packed, packed_bytes)) {}

const LstmShape &DeviceStack::shape() const { return packed_->shape; }

} // namespace cuda
} // namespace lstm_fastkernels
