// The packed form for CUDA devices: where each weight lies, and which headers are refused.
#include <cstring>

#include "check.h"
#include "cuda/host/device_stack.h"
#include "on_device.h"
#include "stack.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

// The weight of a row, counted with padding, and column as the kernels find it; 0 where its
// fragment is left out.
float weight_at(const cuda::DeviceMatrix &m, int64_t row, int64_t column) {
  const bool is_float = m.arithmetic() == Arithmetic::float32;
  const int64_t band = row / 16, width = is_float ? 4 : 32;
  for (uint32_t i = m.starts[band]; i < m.starts[band + 1]; ++i) {
    if (m.columns[i] != column / width)
      continue;
    const int64_t r = row % 16, k = column % width;
    if (is_float)
      return reinterpret_cast<const float *>(m.fragments)[int64_t{i} * 64 + r * 4 + k];
    // PTX: lane 4 g + t holds rows g (a0, a2) and g + 8 (a1, a3); a0 and a1 are the first 4 of its
    // columns, which we number 8 t .. 8 t + 7.
    const int64_t lane = r % 8 * 4 + k / 8, reg = (k % 8 >= 4 ? 2 : 0) + (r >= 8 ? 1 : 0);
    return static_cast<int8_t>(m.fragments[int64_t{i} * 512 + lane * 16 + reg * 4 + k % 4]);
  }
  return 0.0f;
}

void check_matrix(const SourceMatrix &source, const cuda::DeviceMatrix &m) {
  CHECK(m.num_columns == source.columns);
  CHECK(m.precision == source.precision);
  const int64_t gate_rows = source.rows / source.gates;
  for (int64_t row = 0; row < source.rows; ++row) {
    const int64_t gate = row / gate_rows, unit = row % gate_rows;
    const int64_t place = source.gates == 4 ? unit / 16 * 64 + gate * 16 + unit % 16 : row;
    CHECK(place < m.padded_rows());
    for (int64_t group = 0; group < source.groups(); ++group) {
      const int64_t at = (place / cuda::kTileHeight * source.groups() + group) * cuda::kTileHeight +
                         place % cuda::kTileHeight;
      CHECK(m.scales[at] == (source.is_int4()
                                 ? source.scales[static_cast<size_t>(row * source.groups() + group)]
                                 : source.scale(row)));
    }
    int32_t sum = 0;
    for (int64_t column = 0; column < source.columns; ++column) {
      const float weight = source.weights[static_cast<size_t>(row * source.columns + column)];
      CHECK(weight_at(m, place, column) == weight);
      sum += static_cast<int32_t>(weight);
    }
    if (source.precision == kInt8)
      CHECK(m.row_sums[place] == sum);
  }
}

TEST(every_weight_is_in_its_place) {
  for (int64_t hidden : {1, 15, 16, 17, 40})
    for (int64_t proj : {0, 1})
      for (Precision precision : kPrecisions)
        for (bool blocks : {false, true}) {
          if (proj >= hidden)
            continue;
          WITH("hidden ", hidden, " proj ", proj, " precision ", precision_name(precision),
               " blocks ", blocks);
          const TypedShape shape = shape_of(67, hidden, proj ? hidden - 1 : 0, 2, 2, precision);
          SourceStack source = random_stack(shape, Weights::any, 5);
          if (blocks)
            source = in_blocks(source, {16, 32}, 0.5f);
          const StackOnDevice on_device(source);
          const cuda::PackedStack &packed = on_device.view().packed();
          for (size_t i = 0; i < source.layers.size(); ++i) {
            check_matrix(source.layers[i].ih, packed.layers[i].ih);
            check_matrix(source.layers[i].hh, packed.layers[i].hh);
            if (proj)
              check_matrix(source.layers[i].hr, packed.layers[i].hr);
          }
        }
}

TEST(headers_that_do_not_fit_are_refused) {
  const TypedShape shape = shape_of(40, 20, 10, 2, 2, kInt16);
  const StackOnDevice good(random_stack(shape, Weights::any, 6));
  using Bytes = std::vector<uint8_t>;
  const auto begin = good.packed().begin();
  const Bytes good_header(begin, begin + static_cast<std::ptrdiff_t>(cuda::header_bytes(shape)));
  const DeviceMemory memory(16);
  const auto read = [&](const auto &change, size_t packed_bytes) {
    Bytes header = good_header;
    change(header);
    return cuda::DeviceStack(header.data(), header.size(), memory.data(), packed_bytes).shape();
  };
  const auto refused = [&](const auto &change) { read(change, good.packed().size()); };
  const auto set = [](Bytes &header, size_t at, uint32_t value) {
    std::memcpy(header.data() + at, &value, sizeof value);
  };
  CHECK(read([](Bytes &) {}, good.packed().size()).hidden_size == 20);
  CHECK_THROWS(refused([](Bytes &header) { header.resize(40); }), "at least 64 bytes");
  CHECK_THROWS(refused([](Bytes &header) { header.resize(64); }), "bytes for these sizes");
  CHECK_THROWS(refused([](Bytes &header) { header[0] = 'x'; }), "bad magic number");
  CHECK_THROWS(refused([&](Bytes &header) { set(header, 8, 77); }), "expected version");
  CHECK_THROWS(refused([&](Bytes &header) { set(header, 12, 1); }), "expected the CUDA layout");
  CHECK_THROWS(read([](Bytes &) {}, good.packed().size() - 1), "bytes for these sizes");
  CHECK_THROWS(refused([&](Bytes &header) { set(header, 36, 0); }), "hidden_size must be in");
  CHECK_THROWS(refused([&](Bytes &header) { set(header, 36, 2000); }), "bytes for these sizes");
  CHECK_THROWS(refused([&](Bytes &header) { set(header, 72, 1); }), "unknown arithmetic");
  CHECK_THROWS(refused([&](Bytes &header) { set(header, 76, 40000); }), "activation range");
  CHECK_THROWS(refused([&](Bytes &header) { set(header, 76, 0); }), "activation range");
  for (uint32_t blocks : {1u, 8u << 16, 7u << 16 | 4, 8u << 16 | 6, 0xffffffffu})
    CHECK_THROWS(refused([&](Bytes &header) { set(header, 80, blocks); }), "blocks of");
  CHECK_THROWS(refused([&](Bytes &header) { set(header, 84, 4 * 2 * 2 + 1); }),
               "17 fragments of 16 are not possible");
  CHECK_THROWS(refused([&](Bytes &header) { set(header, 84, 4 * 2 * 2 - 1); }),
               "bytes for these sizes");

  const TypedShape of_int4 = shape_of(40, 20, 0, 1, 1, kInt4);
  const Bytes int4 = StackOnDevice(random_stack(of_int4, Weights::any, 6)).packed();
  const auto refused_int4 = [&](size_t at, uint32_t value, const std::string &part) {
    Bytes header(int4.begin(),
                 int4.begin() + static_cast<std::ptrdiff_t>(cuda::header_bytes(of_int4)));
    set(header, at, value);
    CHECK_THROWS(cuda::DeviceStack(header.data(), header.size(), memory.data(), int4.size()), part);
  };
  refused_int4(80, 8 << 16 | 4, "blocks of 8 x 4 are not possible");
  refused_int4(84, 15, "15 fragments of 16 are not possible");

  CHECK_THROWS(cuda::DeviceStack(good_header.data(), good_header.size(), memory.data() + 8,
                                 good.packed().size()),
               "aligned to 16 bytes");
  // What was packed for the CPU is not taken, nor the other way round.
  CHECK_THROWS(packed_shape(good.packed().data(), good.packed().size()), "expected the CPU layout");
}

} // namespace
} // namespace lstm_fastkernels
