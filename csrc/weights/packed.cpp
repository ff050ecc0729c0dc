#include "weights/packed.h"

#include <algorithm>
#include <string>

#include "common/fail.h"
#include "weights/packed_contents.h"
#include "weights/packed_matrix.h"

namespace lstm_fastkernels {
namespace {

constexpr char kMagic[8] = {'L', 'F', 'K', 'L', 'S', 'T', 'M', '\0'};
constexpr uint32_t kVersion = 6;
constexpr int64_t kMaxRank = 65535; // as of other sizes

const char *layout_name(Backend backend) {
  return backend == Backend::cpu ? "the CPU layout (1)" : "the CUDA layout (2)";
}

} // namespace

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
  header.numeric_contract = kNumericContract;
  return header;
}

void check_rank(int64_t rank, const std::string &name) {
  if (rank < 0 || rank > kMaxRank)
    fail(name + ": the rank of factors must be in 1.." + std::to_string(kMaxRank) + ", got " +
         std::to_string(rank));
}

uint32_t rank_of(const WeightMatrix &matrix, const std::string &name) {
  if (!matrix.v && matrix.rank == 0)
    return 0;
  check_rank(matrix.rank, name);
  if (!matrix.v || matrix.rank == 0)
    fail(name + ": a low-rank matrix has a rank and a factor V");
  if (is_table(matrix.precision))
    fail(name + ": a table has no factors");
  if (matrix.v->v || matrix.v->rank || matrix.v->precision != matrix.precision)
    fail(name + ": the factor V must be a plain matrix of U's precision");
  return static_cast<uint32_t>(matrix.rank);
}

PackHeader header_of(const void *packed, size_t bytes) {
  PackHeader header;
  if (bytes < sizeof header)
    fail("packed weights: expected at least " + std::to_string(sizeof header) + " bytes, got " +
         std::to_string(bytes));
  std::memcpy(&header, packed, sizeof header);
  if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0)
    fail("packed weights: bad magic number");
  return header;
}

bool is_of_this_version(const void *packed, size_t bytes) {
  const PackHeader header = header_of(packed, bytes);
  return header.version == kVersion && header.numeric_contract == kNumericContract &&
         header.backend == static_cast<uint32_t>(Backend::cpu);
}

LstmShape read_header(const PackHeader &header, Backend backend) {
  if (header.version != kVersion)
    fail("packed weights: expected version " + std::to_string(kVersion) + ", got " +
         std::to_string(header.version));
  if (header.backend != static_cast<uint32_t>(backend))
    fail("packed weights: expected " + std::string(layout_name(backend)) + ", got " +
         std::to_string(header.backend));
  if (header.numeric_contract != kNumericContract)
    fail("packed weights: expected numeric contract " + std::to_string(kNumericContract) +
         ", got " + std::to_string(header.numeric_contract));
  LstmShape shape;
  shape.input_size = header.input_size;
  shape.hidden_size = header.hidden_size;
  shape.proj_size = header.proj_size;
  shape.num_layers = header.num_layers;
  shape.num_directions = header.num_directions;
  validate(shape);
  return shape;
}

struct PackPlan::Plan : StackPlan<CpuLayout> {
  using StackPlan::StackPlan;
};

PackPlan::PackPlan(const LstmShape &shape, const CellWeights *cells)
    : plan_(std::make_unique<const Plan>(shape, cells)) {}
PackPlan::~PackPlan() = default;
size_t PackPlan::bytes() const { return plan_->bytes(); }
void PackPlan::write(void *packed, size_t bytes) const { plan_->write(packed, bytes); }

LstmShape packed_shape(const void *packed, size_t bytes) {
  return read_shape<CpuLayout>(packed, bytes, bytes);
}

PackedStack::PackedStack(const void *packed, size_t bytes) {
  const uint8_t *base = static_cast<const uint8_t *>(packed);
  const auto add = [&](const LstmShape &of, int64_t layer, const LayerRecord &record,
                       const LayerOffsets<CpuLayout> &at) {
    PackedLayer view_of;
    for_each_part(of, layer, record.ranks, [&](const MatrixShape &part_of, int kind, int part) {
      PackedMatrix &whole = matrix_of(view_of, static_cast<MatrixKind>(kind));
      whole.rank = record.ranks[kind];
      (part ? whole.v : static_cast<Matrix &>(whole)) =
          view(part_of, record.parts[kind][part], base, at.parts[kind][part]);
    });
    view_of.bias = base + at.bias;
    layers.push_back(view_of);
  };
  shape = read_stack<CpuLayout>(packed, bytes, bytes, add);
  check_stack(shape, layers, kStripRows, [](const auto &...of) { check_contents(of...); });
}

} // namespace lstm_fastkernels
