// Canonical tensors, found by name and checked: the one way from torch, files and C to packing.
#include <algorithm>
#include <cstring>
#include <deque>
#include <set>
#include <utility>

#include "common/fail.h"
#include "lstm_fastkernels/weights.h"
#include "weights/matrix_source.h"
#include "weights/packed_int4.h"

namespace lstm_fastkernels {
namespace {

constexpr int64_t kAnySize = -1;
using Sizes = std::vector<int64_t>;

std::string text(const Sizes &shape) {
  std::string sizes;
  for (const int64_t size : shape)
    sizes += (sizes.empty() ? "" : ", ") + (size == kAnySize ? "any" : std::to_string(size));
  return "[" + sizes + "]";
}

bool fits(const TensorView &tensor, const char *dtype, const Sizes &shape) {
  return tensor.dtype == dtype && tensor.shape.size() == shape.size() &&
         std::equal(
             shape.begin(), shape.end(), tensor.shape.begin(),
             [](int64_t wanted, int64_t size) { return wanted == kAnySize || wanted == size; });
}

// Rows cost memory, even without weights: some 16 bytes packed and more while they are. So tensors
// of more than a million of them must have a byte for 16.
constexpr int64_t kUnquestionedRows = int64_t{1} << 20;
constexpr int64_t kMostRowsAByte = 16;

void check_rows(const LstmShape &shape, const std::map<std::string, TensorView> &tensors) {
  const int64_t rows = shape.num_cells() * (8 * shape.hidden_size + shape.proj_size);
  int64_t bytes = 0;
  for (const auto &[name, tensor] : tensors)
    bytes += static_cast<int64_t>(tensor.bytes);
  if (rows > kUnquestionedRows && rows / kMostRowsAByte > bytes)
    fail("the LSTM's sizes are not possible with tensors of " + std::to_string(bytes) + " bytes");
}

} // namespace

struct CanonicalTensors::Collected {
  Collected(const LstmShape &shape, bool bias, const std::vector<Precision> &precisions,
            std::map<std::string, TensorView> given)
      : tensors(std::move(given)) {
    validate(shape);
    check_rows(shape, tensors);
    cells.resize(static_cast<size_t>(shape.num_cells()));
    takes_ids(shape, precisions); // throws where there cannot be a table
    const std::vector<MatrixName> names = matrix_names(shape);
    for (size_t i = 0; i < names.size(); ++i)
      matrix_of(cells[static_cast<size_t>(names[i].cell)], names[i].kind) =
          matrix(names[i], precisions[i]);
    for (int64_t cell = 0; bias && cell < shape.num_cells(); ++cell)
      cells[static_cast<size_t>(cell)].bias =
          array<float>("bias" + cell_suffix(shape, cell), "F32", {4 * shape.hidden_size});
    for (const auto &[name, tensor] : tensors)
      if (!used.count(name))
        fail(name + " does not belong to an LSTM of this configuration");
  }

  WeightMatrix matrix(const MatrixName &of, Precision precision) {
    if (is_table(precision))
      return table(of, precision);
    const auto found = tensors.find(of.name + "_v");
    if (found == tensors.end())
      return part(of, precision);
    MatrixName u = of, v = of;
    u.name += "_u";
    v.name += "_v";
    v.gates = 1;
    v.rows = u.columns = found->second.shape.empty() ? 0 : found->second.shape[0];
    if (v.rows < 1)
      fail(v.name + " must have at least one row");
    factors.push_back(part(v, precision));
    WeightMatrix m = part(u, precision);
    m.rank = v.rows;
    m.v = &factors.back();
    return m;
  }

  // A matrix that is not low-rank, or a factor.
  WeightMatrix part(const MatrixName &of, Precision precision) {
    if (precision.weights == WeightType::int4)
      return int4_matrix(of, precision);
    const bool integers = precision.weights == WeightType::int8;
    const char *const dtype = integers ? "I8" : "F32";
    WeightMatrix m;
    m.precision = precision;
    if (tensors.count(of.name + "_values")) {
      const TensorView &values = find(of.name + "_values", dtype, {kAnySize, kAnySize, kAnySize});
      m.weights = values.data;
      m.num_blocks = values.shape[0];
      m.block_rows = values.shape[1];
      m.block_columns = values.shape[2];
      const int64_t block_rows = count_block_rows(of.rows, of.gates, m.block_rows, of.name);
      m.crow_indices = array<int32_t>(of.name + "_crow_indices", "I32", {block_rows + 1});
      m.col_indices = array<int32_t>(of.name + "_col_indices", "I32", {m.num_blocks});
    } else {
      m.weights = find(of.name, dtype, {of.rows, of.columns}).data;
    }
    if (integers)
      m.scales = array<float>(of.name + "_scale", "F32", {of.rows});
    return m;
  }

  WeightMatrix table(const MatrixName &of, Precision precision) {
    WeightMatrix m;
    m.precision = precision;
    const char *const dtype = precision.weights == WeightType::float16 ? "F16" : "F32";
    m.weights = find(of.name + "_table", dtype, {of.columns, of.rows}).data;
    return m;
  }

  WeightMatrix int4_matrix(const MatrixName &of, Precision precision) {
    WeightMatrix m;
    m.precision = precision;
    m.weights = find(of.name, "U8", {of.rows, divide_up(of.columns, 2)}).data;
    const std::string scale = of.name + "_scale";
    m.scales = array<float>(scale, "F32", {of.rows, kAnySize});
    m.group_size = group_size_of(of.columns, tensors.find(scale)->second.shape[1], scale);
    return m;
  }

  // kAnySize in `shape` is any size.
  const TensorView &find(const std::string &name, const char *dtype, const Sizes &shape) {
    const auto found = tensors.find(name);
    if (found == tensors.end())
      fail(name + " is missing");
    const TensorView &tensor = found->second;
    if (!fits(tensor, dtype, shape))
      fail(name + ": expected " + dtype + " " + text(shape) + ", got " + tensor.dtype + " " +
           text(tensor.shape));
    used.insert(name);
    return tensor;
  }

  // At T's alignment, and not null.
  template <class T>
  const T *array(const std::string &name, const char *dtype, const Sizes &shape) {
    const TensorView &tensor = find(name, dtype, shape);
    if (tensor.data && reinterpret_cast<uintptr_t>(tensor.data) % alignof(T) == 0)
      return static_cast<const T *>(tensor.data);
    std::vector<uint8_t> &copy = copies.emplace_back(tensor.bytes + sizeof(T));
    if (tensor.bytes)
      std::memcpy(copy.data(), tensor.data, tensor.bytes);
    return reinterpret_cast<const T *>(copy.data());
  }

  std::map<std::string, TensorView> tensors;
  std::set<std::string> used;
  std::deque<std::vector<uint8_t>> copies;
  std::deque<WeightMatrix> factors; // V
  std::vector<CellWeights> cells;
};

CanonicalTensors::CanonicalTensors(const LstmShape &shape, bool bias,
                                   const std::vector<Precision> &precisions,
                                   std::map<std::string, TensorView> tensors)
    : collected_(std::make_unique<const Collected>(shape, bias, precisions, std::move(tensors))) {}

CanonicalTensors::~CanonicalTensors() = default;

const CellWeights *CanonicalTensors::cells() const { return collected_->cells.data(); }

} // namespace lstm_fastkernels
