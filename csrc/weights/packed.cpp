#include "weights/packed.h"

#include <algorithm>
#include <string>

#include "common/fail.h"
#include "weights/packed_matrix.h"

namespace lstm_fastkernels {
namespace {

constexpr char kMagic[8] = {'L', 'F', 'K', 'L', 'S', 'T', 'M', '\0'};
constexpr uint32_t kVersion = 2;
constexpr int64_t kMaxSize = 65535;
constexpr int64_t kMaxLayers = 1024;

const char *layout_name(Backend backend) {
  return backend == Backend::cpu ? "the CPU layout (1)" : "the CUDA layout (2)";
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

PackHeader make_header(const LstmShape &shape, Backend backend, size_t total_bytes) {
  PackHeader header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kVersion;
  header.backend = static_cast<uint32_t>(backend);
  header.total_bytes = total_bytes;
  header.input_size = static_cast<uint32_t>(shape.input_size);
  header.hidden_size = static_cast<uint32_t>(shape.hidden_size);
  header.proj_size = static_cast<uint32_t>(shape.proj_size);
  header.num_layers = static_cast<uint32_t>(shape.num_layers);
  header.num_directions = static_cast<uint32_t>(shape.num_directions);
  header.activation_bits = static_cast<uint32_t>(shape.activation_bits);
  return header;
}

LstmShape read_header(const PackHeader &header, Backend backend) {
  if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0)
    fail("packed weights: the buffer does not start with this library's mark");
  if (header.version != kVersion)
    fail("packed weights: expected version " + std::to_string(kVersion) + ", got " +
         std::to_string(header.version));
  if (header.backend != static_cast<uint32_t>(backend))
    fail("packed weights: expected " + std::string(layout_name(backend)) + ", got " +
         std::to_string(header.backend));
  LstmShape shape;
  shape.input_size = header.input_size;
  shape.hidden_size = header.hidden_size;
  shape.proj_size = header.proj_size;
  shape.num_layers = header.num_layers;
  shape.num_directions = header.num_directions;
  shape.activation_bits = static_cast<int>(header.activation_bits);
  validate(shape);
  return shape;
}

size_t packed_bytes(const LstmShape &shape, const LayerWeights *layers) {
  return StackPlan<CpuLayout>(shape, layers).bytes();
}

void pack(const LstmShape &shape, const LayerWeights *layers, void *packed, size_t bytes) {
  StackPlan<CpuLayout>(shape, layers).write(packed, bytes);
}

LstmShape packed_shape(const void *packed, size_t bytes) {
  return read_shape<CpuLayout>(packed, bytes, bytes);
}

PackedStack::PackedStack(const void *packed, size_t bytes) {
  const uint8_t *base = static_cast<const uint8_t *>(packed);
  const auto add = [&](const LstmShape &of, int64_t layer, const LayerRecord &record,
                       const LayerOffsets<CpuLayout> &at) {
    PackedLayer view_of;
    view_of.ih = view(ih_shape(of, layer), record.ih, base, at.ih);
    view_of.hh = view(hh_shape(of), record.hh, base, at.hh);
    if (of.proj_size)
      view_of.hr = view(hr_shape(of), record.hr, base, at.hr);
    view_of.bias = base + at.bias;
    layers.push_back(view_of);
  };
  shape = read_stack<CpuLayout>(packed, bytes, bytes, add);
}

} // namespace lstm_fastkernels
