// What the packed forms of all backends have in common: a header, one record a layer and direction,
// then each layer's sections. A backend's layout says what a matrix looks like:
//
//   Plan      a validated matrix: Plan(shape, source, name), record(), write()
//   Offsets   where a matrix's sections lie; place(sections, shape, record) adds them
//   check     refuses a record that no matrix of a shape can have
//   kBackend  what the header says, kHeight: rows of a strip
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "common/fail.h"
#include "weights/matrix_source.h"

namespace lstm_fastkernels {

enum class Backend : uint32_t { cpu = 1, cuda = 2 };

struct PackHeader {
  char magic[8];
  uint32_t version, backend, numeric_contract, num_directions;
  uint64_t total_bytes;
  uint32_t input_size, hidden_size, proj_size, num_layers;
  uint32_t reserved[4];
};
static_assert(sizeof(PackHeader) == 64);

// What a packed buffer says of a matrix.
struct MatrixRecord {
  WeightType weights;
  ActivationType activations;
  uint32_t arithmetic;
  int32_t activation_max;
  uint32_t blocks;        // that it was given in, rows << 16 | columns; 0 where dense
  uint32_t positions;     // CPU: of all slices, 0 where dense; CUDA: fragments of all bands
  uint32_t row_sum_bytes; // 0 where activations have no zero points
  uint32_t scale_columns; // of int4: how many share a scale; 0 of others

  Precision precision() const { return {weights, activations}; }
  int64_t block_rows() const { return blocks >> 16; }
  int64_t block_columns() const { return blocks & 0xffff; }
  void set_blocks(const WeightMatrix &source) {
    if (source.crow_indices)
      blocks = static_cast<uint32_t>(source.block_rows << 16 | source.block_columns);
  }
  int64_t scale_groups(const MatrixShape &shape) const {
    return scale_columns ? divide_up(shape.columns, scale_columns) : 1;
  }
};
static_assert(sizeof(MatrixRecord) == 32);

constexpr int kKinds = 3;     // of matrices: ih, hh, hr, in MatrixKind's order
constexpr int kMostParts = 2; // of a matrix: itself, or its factors U and V

struct LayerRecord {
  MatrixRecord parts[kKinds][kMostParts];
  uint32_t ranks[kKinds]; // 0 where a matrix is not low-rank
  uint32_t reserved[13];
};
static_assert(sizeof(LayerRecord) == 256);

// Of a layer; there is no hr without a projection.
inline MatrixShape matrix_shape(const LstmShape &shape, int64_t layer, MatrixKind kind) {
  if (kind == MatrixKind::hr)
    return {shape.proj_size, shape.hidden_size, false};
  return {4 * shape.hidden_size,
          kind == MatrixKind::ih ? shape.layer_input_size(layer) : shape.output_size(), true};
}
inline int num_kinds(const LstmShape &shape) { return shape.proj_size ? kKinds : kKinds - 1; }

// The parts of a matrix: itself, or U and V.
inline int num_parts(int64_t rank) { return rank ? kMostParts : 1; }
inline MatrixShape part_shape(const MatrixShape &whole, int64_t rank, int part) {
  if (part == 1)
    return {rank, whole.columns, false};
  return {whole.rows, rank ? rank : whole.columns, whole.gates};
}
inline std::string part_name(const std::string &name, int64_t rank, int part) {
  return rank ? name + (part ? "_v" : "_u") : name;
}

// Calls visit(matrix, its shape, its name) for the parts of all matrices of a packed stack.
template <class Layers, class Visit>
void for_each_matrix(const LstmShape &shape, const Layers &layers, const Visit &visit) {
  for (const MatrixName &of : matrix_names(shape)) {
    const auto &matrix = matrix_of(layers[static_cast<size_t>(of.cell)], of.kind);
    for (int part = 0; part < num_parts(matrix.rank); ++part)
      visit(part ? matrix.v : matrix, part_shape(matrix_shape(of), matrix.rank, part),
            part_name(of.name, matrix.rank, part));
  }
}

// Rows of the gates, as biases have them.
inline MatrixShape gates_shape(const LstmShape &shape) {
  return matrix_shape(shape, 0, MatrixKind::hh);
}

// Bytes of the header and the records.
inline int64_t header_size(const LstmShape &shape) {
  return int64_t{sizeof(PackHeader)} + shape.num_cells() * int64_t{sizeof(LayerRecord)};
}

// The header for a packed form of so many bytes, and the shape of a header: throws Error unless it
// is this library's, and of this backend.
PackHeader make_header(const LstmShape &shape, Backend backend, size_t total_bytes);
LstmShape read_header(const PackHeader &header, Backend backend);
// The header of a packed form, of any version: throws Error for other bytes.
PackHeader header_of(const void *packed, size_t bytes);

// The rank of a matrix, 0 where it is not low-rank. Throws Error, naming it, for one that is not
// possible and for factors of different precisions.
uint32_t rank_of(const WeightMatrix &matrix, const std::string &name);
void check_rank(int64_t rank, const std::string &name);

// Walks over the sections of a buffer in their one fixed order; bytes() is what it has passed. Each
// section starts at a multiple of 64 bytes.
class Sections {
public:
  explicit Sections(int64_t start) : offset_(start) {}
  int64_t add(int64_t bytes) {
    const int64_t at = offset_;
    offset_ += round_up(bytes, 64);
    return at;
  }
  int64_t bytes() const { return offset_; }

private:
  int64_t offset_;
};

template <class T> void write(uint8_t *array, int64_t i, T value) {
  std::memcpy(array + i * static_cast<int64_t>(sizeof(T)), &value, sizeof(T));
}

// Calls visit(source row, i, its place) for the values i < count of each row, which lie as [tiles]
// [count][rows of a tile] among strips of `height`; not for padding.
template <class Visit>
void for_each_row_value(const MatrixShape &shape, int64_t height, int64_t count,
                        const Visit &visit) {
  const int64_t tile_rows = kStripsPerTile * height;
  for (int64_t tile = 0; tile < shape.num_tiles(height); ++tile)
    for (int64_t position = 0; position < tile_rows; ++position) {
      const int64_t row = shape.source_row(tile, position, height);
      for (int64_t i = 0; row >= 0 && i < count; ++i)
        visit(row, i, (tile * count + i) * tile_rows + position);
    }
}

// Writes value(source row, i) for each of them.
template <class T, class Value>
void write_row_values(uint8_t *section, const MatrixShape &shape, int64_t height, int64_t count,
                      Value value) {
  for_each_row_value(shape, height, count, [&](int64_t row, int64_t i, int64_t place) {
    write<T>(section, place, value(row, i));
  });
}

// Of one value a row.
template <class T, class Value>
void write_rows(uint8_t *section, const MatrixShape &shape, int64_t height, Value value) {
  write_row_values<T>(section, shape, height, 1, [&](int64_t row, int64_t) { return value(row); });
}

template <class Layout> struct LayerOffsets {
  typename Layout::Offsets parts[kKinds][kMostParts];
  int64_t bias; // float [rows with padding]
};

// Calls visit(its shape, kind, part) for the parts of a layer's matrices in their order.
template <class Visit>
void for_each_part(const LstmShape &shape, int64_t layer, const uint32_t (&ranks)[kKinds],
                   const Visit &visit) {
  for (int kind = 0; kind < num_kinds(shape); ++kind)
    for (int part = 0; part < num_parts(ranks[kind]); ++part)
      visit(
          part_shape(matrix_shape(shape, layer, static_cast<MatrixKind>(kind)), ranks[kind], part),
          kind, part);
}

template <class Layout>
LayerOffsets<Layout> place_layer(Sections &sections, const LstmShape &shape, int64_t layer,
                                 const LayerRecord &record) {
  LayerOffsets<Layout> at{};
  for_each_part(shape, layer, record.ranks, [&](const MatrixShape &of, int kind, int part) {
    at.parts[kind][part] = Layout::place(sections, of, record.parts[kind][part]);
  });
  const int64_t rows = gates_shape(shape).num_strips(Layout::kHeight) * Layout::kHeight;
  at.bias = sections.add(rows * int64_t{sizeof(float)});
  return at;
}

// Validated weights of a stack and how they will be packed. The weights must live as long.
template <class Layout> class StackPlan {
public:
  // Throws Error, naming the matrix.
  StackPlan(const LstmShape &shape, const CellWeights *cells) : shape_(shape) {
    validate(shape);
    std::vector<Precision> precisions;
    for (const MatrixName &of : matrix_names(shape))
      precisions.push_back(matrix_of(cells[of.cell], of.kind).precision);
    takes_ids(shape, precisions); // throws where there cannot be a table
    Sections sections(header_size(shape));
    for (int64_t i = 0; i < shape.num_cells(); ++i) {
      layers_.push_back(plan_layer(i, cells[i]));
      place_layer<Layout>(sections, shape, i / shape.num_directions, layers_.back().record);
    }
    bytes_ = static_cast<size_t>(sections.bytes());
  }

  size_t bytes() const { return bytes_; }

  // Throws Error unless there is room for exactly bytes().
  void write(void *packed, size_t bytes) const {
    if (bytes != bytes_)
      fail("pack: the packed form takes " + std::to_string(bytes_) + " bytes, not " +
           std::to_string(bytes));
    uint8_t *base = static_cast<uint8_t *>(packed);
    std::fill_n(base, bytes_, uint8_t{0});
    lstm_fastkernels::write(base, 0, make_header(shape_, Layout::kBackend, bytes_));
    Sections sections(header_size(shape_));
    for (int64_t i = 0; i < shape_.num_cells(); ++i) {
      const Layer &plan = layers_[static_cast<size_t>(i)];
      const LayerOffsets<Layout> at =
          place_layer<Layout>(sections, shape_, i / shape_.num_directions, plan.record);
      lstm_fastkernels::write(base + sizeof(PackHeader), i, plan.record);
      size_t next = 0;
      for_each_part(shape_, i / shape_.num_directions, plan.record.ranks,
                    [&](const MatrixShape &, int kind, int part) {
                      plan.parts[next++].write(base, at.parts[kind][part]);
                    });
      if (plan.bias)
        write_rows<float>(base + at.bias, gates_shape(shape_), Layout::kHeight,
                          [&](int64_t row) { return plan.bias[row]; });
    }
  }

private:
  struct Layer {
    LayerRecord record{};
    std::vector<typename Layout::Plan> parts; // in their order
    const float *bias = nullptr;
  };

  Layer plan_layer(int64_t index, const CellWeights &weights) const {
    const std::string suffix = cell_suffix(shape_, index);
    const std::string names[kKinds] = {"weight_ih", "weight_hh", "weight_hr"};
    const WeightMatrix *const sources[kKinds] = {&weights.ih, &weights.hh, &weights.hr};
    Layer plan;
    for (int kind = 0; kind < num_kinds(shape_); ++kind)
      plan.record.ranks[kind] = rank_of(*sources[kind], names[kind] + suffix);
    for_each_part(shape_, index / shape_.num_directions, plan.record.ranks,
                  [&](const MatrixShape &of, int kind, int part) {
                    const WeightMatrix &source = *sources[kind];
                    plan.parts.emplace_back(
                        of, part ? *source.v : source,
                        part_name(names[kind] + suffix, plan.record.ranks[kind], part));
                    plan.record.parts[kind][part] = plan.parts.back().record();
                  });
    for (int64_t row = 0; weights.bias && row < 4 * shape_.hidden_size; ++row)
      if (!std::isfinite(weights.bias[row]))
        fail("bias" + suffix + " must be finite, row " + std::to_string(row) + " is not");
    plan.bias = weights.bias;
    return plan;
  }

  LstmShape shape_;
  std::vector<Layer> layers_;
  size_t bytes_;
};

// Checks the header and every record of a packed form that is `bytes` long in all, of which the
// first `readable` can be looked into; calls visit(shape, layer, record, its offsets) for each that
// lies within the buffer, before the buffer's length as a whole is checked.
template <class Layout, class Visit>
LstmShape read_stack(const void *packed, size_t readable, size_t bytes, const Visit &visit) {
  const PackHeader header = header_of(packed, readable);
  const LstmShape shape = read_header(header, Layout::kBackend);
  Sections sections(header_size(shape));
  std::vector<Precision> precisions;
  if (static_cast<int64_t>(readable) >= header_size(shape)) {
    for (int64_t i = 0; i < shape.num_cells(); ++i) {
      const int64_t layer = i / shape.num_directions;
      const LayerRecord record =
          read<LayerRecord>(static_cast<const uint8_t *>(packed) + sizeof(PackHeader), i);
      for (int kind = 0; kind < num_kinds(shape); ++kind)
        check_rank(record.ranks[kind], "packed weights");
      for_each_part(shape, layer, record.ranks, [&](const MatrixShape &of, int kind, int part) {
        Layout::check(of, record.parts[kind][part]);
        const Precision precision = record.parts[kind][part].precision();
        if (part && (precision != record.parts[kind][0].precision() || is_table(precision)))
          fail("packed weights: factors must have one precision");
        if (part == 0)
          precisions.push_back(precision);
      });
      const LayerOffsets<Layout> at = place_layer<Layout>(sections, shape, layer, record);
      if (sections.bytes() <= static_cast<int64_t>(bytes))
        visit(shape, layer, record, at);
    }
    takes_ids(shape, precisions); // throws where there cannot be a table
  }
  const size_t expected = static_cast<size_t>(sections.bytes());
  if (bytes != expected || header.total_bytes != expected)
    fail("packed weights: expected " + std::to_string(expected) + " bytes for these sizes, got " +
         std::to_string(bytes) + " (header says " + std::to_string(header.total_bytes) + ")");
  return shape;
}

// read_stack, for the shape alone.
template <class Layout> LstmShape read_shape(const void *packed, size_t readable, size_t bytes) {
  return read_stack<Layout>(
      packed, readable, bytes,
      [](const LstmShape &, int64_t, const LayerRecord &, const LayerOffsets<Layout> &) {});
}

} // namespace lstm_fastkernels
