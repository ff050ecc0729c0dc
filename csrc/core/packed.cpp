#include "packed.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <stdexcept>
#include <string>

namespace lstm_fastkernels {
namespace {

constexpr char kMagic[8] = {'L', 'F', 'K', 'L', 'S', 'T', 'M', '\0'};
constexpr uint32_t kVersion = 1;
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

struct MatrixRecord {
  uint32_t form;
  int32_t activation_max;
};

struct Record {
  MatrixRecord ih, hh, hr;
  uint32_t reserved[10];
};
static_assert(sizeof(Record) == 64);

// Which rows and columns of which source a packed matrix holds.
struct MatrixShape {
  int64_t rows, columns;
  bool gates; // rows are 4 gates of rows / 4 units; otherwise plain rows

  int64_t num_tiles() const {
    return gates ? divide_up(rows / 4, kTileUnits) : divide_up(rows, kTileRows);
  }
  // The source row at `position` of `tile`, or -1 for padding.
  int64_t source_row(int64_t tile, int64_t position) const {
    if (!gates) {
      const int64_t row = tile * kTileRows + position;
      return row < rows ? row : -1;
    }
    const int64_t unit = tile * kTileUnits + position % kTileUnits;
    return unit < rows / 4 ? position / kTileUnits * (rows / 4) + unit : -1;
  }
};

[[noreturn]] void fail(const std::string &message) { throw std::invalid_argument(message); }

void check(const LstmShape &shape) {
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
  if (shape.activation_bits != 8 && shape.activation_bits != 16)
    fail("activation_bits must be 8 or 16, got " + std::to_string(shape.activation_bits));
}

MatrixShape ih_shape(const LstmShape &shape, int64_t layer) {
  return {4 * shape.hidden_size, shape.layer_input_size(layer), true};
}
MatrixShape hh_shape(const LstmShape &shape) {
  return {4 * shape.hidden_size, shape.output_size(), true};
}
MatrixShape hr_shape(const LstmShape &shape) { return {shape.proj_size, shape.hidden_size, false}; }

// Walks over the sections of a buffer in their one fixed order; bytes() is what it has passed.
class Sections {
public:
  explicit Sections(int64_t start) : offset_(start) {}
  int64_t take(int64_t bytes) {
    const int64_t at = offset_;
    offset_ += bytes;
    return at;
  }
  int64_t bytes() const { return offset_; }

private:
  int64_t offset_;
};

struct MatrixOffsets {
  int64_t tiles, row_sums, scales;
};

struct LayerOffsets {
  MatrixOffsets ih, hh, hr;
  int64_t bias;
};

MatrixOffsets take_matrix(Sections &sections, const MatrixShape &m, int activation_bits) {
  const int64_t group = activation_bits == 8 ? 4 : 2;
  const int64_t rows = m.num_tiles() * kTileRows;
  MatrixOffsets at{};
  at.tiles = sections.take(rows * round_up(m.columns, group));
  at.row_sums = sections.take(activation_bits == 8 ? rows * int64_t{sizeof(int16_t)} : 0);
  at.scales = sections.take(rows * int64_t{sizeof(float)});
  return at;
}

LayerOffsets take_layer(Sections &sections, const LstmShape &shape, int64_t layer) {
  LayerOffsets at{};
  at.ih = take_matrix(sections, ih_shape(shape, layer), shape.activation_bits);
  at.hh = take_matrix(sections, hh_shape(shape), shape.activation_bits);
  if (shape.proj_size)
    at.hr = take_matrix(sections, hr_shape(shape), shape.activation_bits);
  at.bias = sections.take(hh_shape(shape).num_tiles() * kTileRows * int64_t{sizeof(float)});
  return at;
}

int64_t first_section(const LstmShape &shape) {
  return int64_t{sizeof(Header)} +
         shape.num_layers * shape.num_directions * int64_t{sizeof(Record)};
}

template <class T> void write(uint8_t *array, int64_t i, T value) {
  std::memcpy(array + i * static_cast<int64_t>(sizeof(T)), &value, sizeof(T));
}

// What the weights of a matrix allow.
struct Proof {
  bool pair_safe = true;     // -128 <= w[2k] + w[2k + 1] <= 128 in every row
  bool short_sums = true;    // every row's sum fits int16
  int64_t max_magnitude = 0; // max over rows of sum |w|
};

Proof examine(const MatrixShape &m, const QuantizedMatrix &source, const char *name) {
  Proof proof;
  for (int64_t r = 0; r < m.rows; ++r) {
    const int8_t *row = source.weights + r * m.columns;
    int64_t sum = 0, magnitude = 0;
    for (int64_t k = 0; k < m.columns; ++k) {
      if (row[k] == -128)
        fail(std::string(name) + ": weights must be in [-127, 127], got -128 in row " +
             std::to_string(r));
      sum += row[k];
      magnitude += std::abs(row[k]);
    }
    for (int64_t k = 0; k + 1 < m.columns; k += 2)
      if (std::abs(row[k] + row[k + 1]) > 128)
        proof.pair_safe = false;
    if (sum != static_cast<int16_t>(sum))
      proof.short_sums = false;
    proof.max_magnitude = std::max(proof.max_magnitude, magnitude);
    if (!std::isfinite(source.scales[r]) || source.scales[r] < 0)
      fail(std::string(name) + ": scales must be finite and not negative, row " +
           std::to_string(r) + " is not");
  }
  return proof;
}

MatrixRecord choose(const Proof &proof, int activation_bits) {
  if (activation_bits == 8) {
    const Form form = proof.pair_safe && proof.short_sums ? Form::offset8 : Form::signed8;
    return {static_cast<uint32_t>(form), 127};
  }
  // The largest A for which no sum of products can leave int32.
  const int64_t limit =
      std::numeric_limits<int32_t>::max() / std::max<int64_t>(1, proof.max_magnitude);
  return {static_cast<uint32_t>(Form::signed16),
          static_cast<int32_t>(std::min<int64_t>(32767, limit))};
}

// Writes value(source row) at each row's place; padding stays zero.
template <class T, class Value>
void write_rows(uint8_t *section, const MatrixShape &m, Value value) {
  for (int64_t tile = 0; tile < m.num_tiles(); ++tile)
    for (int64_t position = 0; position < kTileRows; ++position) {
      const int64_t row = m.source_row(tile, position);
      if (row >= 0)
        write<T>(section, tile * kTileRows + position, value(row));
    }
}

MatrixRecord pack_matrix(const MatrixShape &m, const QuantizedMatrix &source, int activation_bits,
                         const char *name, uint8_t *base, const MatrixOffsets &at) {
  const MatrixRecord record = choose(examine(m, source, name), activation_bits);
  const int64_t group = columns_per_group(static_cast<Form>(record.form));
  const int64_t tile_bytes = kTileRows * round_up(m.columns, group);
  for (int64_t tile = 0; tile < m.num_tiles(); ++tile)
    for (int64_t position = 0; position < kTileRows; ++position) {
      const int64_t row = m.source_row(tile, position);
      if (row < 0)
        continue;
      uint8_t *out = base + at.tiles + tile * tile_bytes + position * group;
      for (int64_t k = 0; k < m.columns; ++k)
        out[k / group * kTileRows * group + k % group] =
            static_cast<uint8_t>(source.weights[row * m.columns + k]);
    }
  if (static_cast<Form>(record.form) == Form::offset8)
    write_rows<int16_t>(base + at.row_sums, m, [&](int64_t row) {
      int64_t sum = 0;
      for (int64_t k = 0; k < m.columns; ++k)
        sum += source.weights[row * m.columns + k];
      return static_cast<int16_t>(sum);
    });
  write_rows<float>(base + at.scales, m, [&](int64_t row) { return source.scales[row]; });
  return record;
}

Matrix view(const MatrixShape &m, const MatrixRecord &record, int activation_bits,
            const uint8_t *base, const MatrixOffsets &at) {
  const bool wide = record.form == static_cast<uint32_t>(Form::signed16);
  const bool known = record.form <= static_cast<uint32_t>(Form::signed16);
  if (!known || wide != (activation_bits == 16))
    fail("packed weights: unknown form " + std::to_string(record.form));
  if (wide ? record.activation_max < 1 || record.activation_max > 32767
           : record.activation_max != 127)
    fail("packed weights: activation range " + std::to_string(record.activation_max) +
         " is not possible");
  Matrix matrix;
  matrix.form = static_cast<Form>(record.form);
  matrix.tiles = base + at.tiles;
  matrix.row_sums = base + at.row_sums;
  matrix.scales = base + at.scales;
  matrix.num_tiles = m.num_tiles();
  matrix.groups = divide_up(m.columns, columns_per_group(matrix.form));
  matrix.activation_max = record.activation_max;
  return matrix;
}

LstmShape read_shape(const void *packed, size_t bytes) {
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
  const size_t expected = packed_bytes(shape);
  if (bytes != expected || header.total_bytes != expected)
    fail("packed weights: expected " + std::to_string(expected) + " bytes for these sizes, got " +
         std::to_string(bytes) + " (header says " + std::to_string(header.total_bytes) + ")");
  return shape;
}

} // namespace

size_t packed_bytes(const LstmShape &shape) {
  check(shape);
  Sections sections(first_section(shape));
  for (int64_t i = 0; i < shape.num_layers * shape.num_directions; ++i)
    take_layer(sections, shape, i / shape.num_directions);
  return static_cast<size_t>(sections.bytes());
}

void pack(const LstmShape &shape, const LayerWeights *layers, void *packed) {
  const size_t total = packed_bytes(shape);
  uint8_t *base = static_cast<uint8_t *>(packed);
  std::memset(base, 0, total);
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kVersion;
  header.backend = kBackendCpu;
  header.total_bytes = total;
  header.input_size = static_cast<uint32_t>(shape.input_size);
  header.hidden_size = static_cast<uint32_t>(shape.hidden_size);
  header.proj_size = static_cast<uint32_t>(shape.proj_size);
  header.num_layers = static_cast<uint32_t>(shape.num_layers);
  header.num_directions = static_cast<uint32_t>(shape.num_directions);
  header.activation_bits = static_cast<uint32_t>(shape.activation_bits);
  write(base, 0, header);

  Sections sections(first_section(shape));
  const int bits = shape.activation_bits;
  for (int64_t i = 0; i < shape.num_layers * shape.num_directions; ++i) {
    const int64_t layer = i / shape.num_directions;
    const LayerWeights &weights = layers[i];
    const LayerOffsets at = take_layer(sections, shape, layer);
    Record record{};
    record.ih = pack_matrix(ih_shape(shape, layer), weights.ih, bits, "weight_ih", base, at.ih);
    record.hh = pack_matrix(hh_shape(shape), weights.hh, bits, "weight_hh", base, at.hh);
    if (shape.proj_size)
      record.hr = pack_matrix(hr_shape(shape), weights.hr, bits, "weight_hr", base, at.hr);
    write(base + sizeof(Header), i, record);
    if (!weights.bias)
      continue;
    write_rows<float>(base + at.bias, hh_shape(shape), [&](int64_t row) {
      if (!std::isfinite(weights.bias[row]))
        fail("bias must be finite, row " + std::to_string(row) + " is not");
      return weights.bias[row];
    });
  }
}

LstmShape packed_shape(const void *packed, size_t bytes) { return read_shape(packed, bytes); }

PackedStack::PackedStack(const void *packed, size_t bytes) : shape(read_shape(packed, bytes)) {
  const uint8_t *base = static_cast<const uint8_t *>(packed);
  Sections sections(first_section(shape));
  const int bits = shape.activation_bits;
  const int64_t count = shape.num_layers * shape.num_directions;
  layers.resize(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t layer = i / shape.num_directions;
    const Record record = read<Record>(base + sizeof(Header), i);
    const LayerOffsets at = take_layer(sections, shape, layer);
    PackedLayer &out = layers[static_cast<size_t>(i)];
    out.ih = view(ih_shape(shape, layer), record.ih, bits, base, at.ih);
    out.hh = view(hh_shape(shape), record.hh, bits, base, at.hh);
    if (shape.proj_size)
      out.hr = view(hr_shape(shape), record.hr, bits, base, at.hr);
    out.bias = base + at.bias;
  }
}

} // namespace lstm_fastkernels
