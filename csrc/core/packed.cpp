#include "packed.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "fail.h"
#include "packed_matrix.h"

namespace lstm_fastkernels {
namespace {

constexpr char kMagic[8] = {'L', 'F', 'K', 'L', 'S', 'T', 'M', '\0'};
constexpr uint32_t kVersion = 2;
constexpr uint32_t kBackendCpu = 1;
constexpr int64_t kMaxSize = 65535;
constexpr int64_t kMaxLayers = 1024;

struct Header {
  char magic[8];
  uint32_t version, backend;
  uint64_t total_bytes;
  uint32_t input_size, hidden_size, proj_size, num_layers, num_directions, activation_bits;
  uint32_t reserved[4];
};
static_assert(sizeof(Header) == 64);

struct Record {
  MatrixRecord ih, hh, hr;
  uint32_t reserved[4];
};
static_assert(sizeof(Record) == 64);

MatrixShape ih_shape(const LstmShape &shape, int64_t layer) {
  return {4 * shape.hidden_size, shape.layer_input_size(layer), true};
}
MatrixShape hh_shape(const LstmShape &shape) {
  return {4 * shape.hidden_size, shape.output_size(), true};
}
MatrixShape hr_shape(const LstmShape &shape) { return {shape.proj_size, shape.hidden_size, false}; }

struct LayerOffsets {
  MatrixOffsets ih, hh, hr;
  int64_t bias;
};

LayerOffsets take_layer(Sections &sections, const LstmShape &shape, int64_t layer,
                        const Record &record) {
  LayerOffsets at{};
  at.ih = take_matrix(sections, ih_shape(shape, layer), record.ih);
  at.hh = take_matrix(sections, hh_shape(shape), record.hh);
  if (shape.proj_size)
    at.hr = take_matrix(sections, hr_shape(shape), record.hr);
  at.bias = sections.take(hh_shape(shape).num_tiles() * kTileRows * int64_t{sizeof(float)});
  return at;
}

int64_t num_layers(const LstmShape &shape) { return shape.num_layers * shape.num_directions; }

int64_t first_section(const LstmShape &shape) {
  return int64_t{sizeof(Header)} + num_layers(shape) * int64_t{sizeof(Record)};
}

} // namespace

struct LayerPlan {
  Record record{};
  std::vector<MatrixPlan> matrices; // ih, hh and, with a projection, hr
  const float *bias = nullptr;
};

namespace {

LayerPlan plan_layer(const LstmShape &shape, int64_t index, const LayerWeights &weights) {
  const int64_t layer = index / shape.num_directions;
  const std::string suffix = layer_suffix(shape, index);
  LayerPlan plan;
  const auto add = [&](const MatrixShape &m, const WeightMatrix &source, const char *name) {
    plan.matrices.emplace_back(m, source, shape.activation_bits, name + suffix);
    return plan.matrices.back().record();
  };
  plan.record.ih = add(ih_shape(shape, layer), weights.ih, "weight_ih");
  plan.record.hh = add(hh_shape(shape), weights.hh, "weight_hh");
  if (shape.proj_size)
    plan.record.hr = add(hr_shape(shape), weights.hr, "weight_hr");
  for (int64_t row = 0; weights.bias && row < 4 * shape.hidden_size; ++row)
    if (!std::isfinite(weights.bias[row]))
      fail("bias" + suffix + " must be finite, row " + std::to_string(row) + " is not");
  plan.bias = weights.bias;
  return plan;
}

// Checks the header and every record; calls visit(shape, layer, record, its offsets) for each that
// lies within the buffer, before the buffer's length as a whole is checked.
template <class Visit> LstmShape read_stack(const void *packed, size_t bytes, const Visit &visit) {
  Header header;
  if (bytes < sizeof header)
    fail("packed weights: expected at least " + std::to_string(sizeof header) + " bytes, got " +
         std::to_string(bytes));
  std::memcpy(&header, packed, sizeof header);
  if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0)
    fail("packed weights: the buffer does not start with this library's mark");
  if (header.version != kVersion)
    fail("packed weights: expected version " + std::to_string(kVersion) + ", got " +
         std::to_string(header.version));
  if (header.backend != kBackendCpu)
    fail("packed weights: expected the CPU layout (1), got " + std::to_string(header.backend));
  LstmShape shape;
  shape.input_size = header.input_size;
  shape.hidden_size = header.hidden_size;
  shape.proj_size = header.proj_size;
  shape.num_layers = header.num_layers;
  shape.num_directions = header.num_directions;
  shape.activation_bits = static_cast<int>(header.activation_bits);
  validate(shape);
  const int64_t start = first_section(shape);
  Sections sections(start);
  if (static_cast<int64_t>(bytes) >= start)
    for (int64_t i = 0; i < num_layers(shape); ++i) {
      const int64_t layer = i / shape.num_directions;
      const Record record = read<Record>(static_cast<const uint8_t *>(packed) + sizeof(Header), i);
      check(ih_shape(shape, layer), record.ih, shape.activation_bits);
      check(hh_shape(shape), record.hh, shape.activation_bits);
      if (shape.proj_size)
        check(hr_shape(shape), record.hr, shape.activation_bits);
      const LayerOffsets at = take_layer(sections, shape, layer, record);
      if (sections.bytes() <= static_cast<int64_t>(bytes))
        visit(shape, layer, record, at);
    }
  const size_t expected = static_cast<size_t>(sections.bytes());
  if (bytes != expected || header.total_bytes != expected)
    fail("packed weights: expected " + std::to_string(expected) + " bytes for these sizes, got " +
         std::to_string(bytes) + " (header says " + std::to_string(header.total_bytes) + ")");
  return shape;
}

} // namespace

void validate(const LstmShape &shape) {
  const auto in_range = [](const char *name, int64_t value, int64_t low, int64_t high) {
    if (value < low || value > high)
      fail(std::string(name) + " must be in " + std::to_string(low) + ".." + std::to_string(high) +
           ", got " + std::to_string(value));
  };
  in_range("input_size", shape.input_size, 1, kMaxSize);
  in_range("hidden_size", shape.hidden_size, 1, kMaxSize);
  in_range("proj_size", shape.proj_size, 0, shape.hidden_size - 1);
  in_range("num_layers", shape.num_layers, 1, kMaxLayers);
  in_range("num_directions", shape.num_directions, 1, 2);
  if (shape.num_layers > 1)
    in_range("num_directions * output size", shape.layer_input_size(1), 1, kMaxSize);
  if (shape.activation_bits != 8 && shape.activation_bits != 16 && shape.activation_bits != 32)
    fail("activation_bits must be 8, 16 or 32, got " + std::to_string(shape.activation_bits));
}

std::string layer_suffix(const LstmShape &shape, int64_t index) {
  const bool reverse = index % shape.num_directions == 1;
  return "_l" + std::to_string(index / shape.num_directions) + (reverse ? "_reverse" : "");
}

StackPlan::StackPlan(const LstmShape &shape, const LayerWeights *layers) : shape_(shape) {
  validate(shape);
  Sections sections(first_section(shape));
  for (int64_t i = 0; i < num_layers(shape); ++i) {
    layers_.push_back(plan_layer(shape, i, layers[i]));
    take_layer(sections, shape, i / shape.num_directions, layers_.back().record);
  }
  bytes_ = static_cast<size_t>(sections.bytes());
}

StackPlan::~StackPlan() = default;

void StackPlan::write(void *packed) const {
  uint8_t *base = static_cast<uint8_t *>(packed);
  std::fill_n(base, bytes_, uint8_t{0});
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kVersion;
  header.backend = kBackendCpu;
  header.total_bytes = bytes_;
  header.input_size = static_cast<uint32_t>(shape_.input_size);
  header.hidden_size = static_cast<uint32_t>(shape_.hidden_size);
  header.proj_size = static_cast<uint32_t>(shape_.proj_size);
  header.num_layers = static_cast<uint32_t>(shape_.num_layers);
  header.num_directions = static_cast<uint32_t>(shape_.num_directions);
  header.activation_bits = static_cast<uint32_t>(shape_.activation_bits);
  lstm_fastkernels::write(base, 0, header);

  Sections sections(first_section(shape_));
  for (int64_t i = 0; i < num_layers(shape_); ++i) {
    const LayerPlan &plan = layers_[static_cast<size_t>(i)];
    const LayerOffsets at = take_layer(sections, shape_, i / shape_.num_directions, plan.record);
    lstm_fastkernels::write(base + sizeof(Header), i, plan.record);
    const MatrixOffsets *const offsets[] = {&at.ih, &at.hh, &at.hr};
    for (size_t m = 0; m < plan.matrices.size(); ++m)
      plan.matrices[m].write(base, *offsets[m]);
    if (plan.bias)
      write_rows<float>(base + at.bias, hh_shape(shape_),
                        [&](int64_t row) { return plan.bias[row]; });
  }
}

size_t packed_bytes(const LstmShape &shape, const LayerWeights *layers) {
  return StackPlan(shape, layers).bytes();
}

void pack(const LstmShape &shape, const LayerWeights *layers, void *packed, size_t bytes) {
  const StackPlan plan(shape, layers);
  if (bytes != plan.bytes())
    fail("pack: the packed form takes " + std::to_string(plan.bytes()) + " bytes, not " +
         std::to_string(bytes));
  plan.write(packed);
}

LstmShape packed_shape(const void *packed, size_t bytes) {
  return read_stack(packed, bytes,
                    [](const LstmShape &, int64_t, const Record &, const LayerOffsets &) {});
}

PackedStack::PackedStack(const void *packed, size_t bytes) {
  const uint8_t *base = static_cast<const uint8_t *>(packed);
  const auto add = [&](const LstmShape &of, int64_t layer, const Record &record,
                       const LayerOffsets &at) {
    PackedLayer view_of;
    view_of.ih = view(ih_shape(of, layer), record.ih, base, at.ih);
    view_of.hh = view(hh_shape(of), record.hh, base, at.hh);
    if (of.proj_size)
      view_of.hr = view(hr_shape(of), record.hr, base, at.hr);
    view_of.bias = base + at.bias;
    layers.push_back(view_of);
  };
  shape = read_stack(packed, bytes, add);
}

} // namespace lstm_fastkernels
