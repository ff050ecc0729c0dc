// What a reader of packed bytes refuses, before anything is read out of bounds.
#include <cstring>
#include <utility>

#include "check.h"
#include "stack.h"
#include "support.h"
#include "weights/packed.h"

namespace lstm_fastkernels {
namespace {

// Where the fields of the header and of the first record lie.
enum Offset : size_t {
  kMagicAt = 0,
  kVersionAt = 8,
  kBackendAt = 12,
  kContractAt = 16,
  kDirectionsAt = 20,
  kTotalAt = 24,
  kInputSizeAt = 32,
  kHiddenSizeAt = 36,
  kProjSizeAt = 40,
  kLayersAt = 44,
  kWeightTypeAt = 64,
  kActivationTypeAt = 68,
  kFormAt = 72,
  kActivationMaxAt = 76,
  kBlocksAt = 80,
  kPositionsAt = 84,
  kRowSumBytesAt = 88,
  kScaleColumnsAt = 92,
  kRanksAt = 64 + 192,
  kRecordBytes = 256,
  kMatrixBytes = 64, // its record and V's
  kRecordsEnd = 64 + 4 * kRecordBytes,
};

// Blocks of 8 x 4, as a record has them.
constexpr uint32_t k8x4 = 8 << 16 | 4;

SourceStack good_stack(Precision precision, bool sparse = false) {
  const SourceStack stack = random_stack(shape_of(5, 9, 3, 2, 2, precision), Weights::any, 1);
  return sparse ? in_blocks(stack, {8, 4}, 1.0f) : stack;
}

std::vector<uint8_t> good(Precision precision = kInt8, bool sparse = false) {
  return good_stack(precision, sparse).packed();
}

std::vector<uint8_t> with(std::vector<uint8_t> packed, size_t offset, uint32_t value) {
  std::memcpy(packed.data() + offset, &value, sizeof value);
  return packed;
}

void check_call_refused(const std::vector<uint8_t> &packed, const std::string &part) {
  LstmArguments nothing;
  nothing.time_steps = 1;
  CHECK_THROWS(lstm_forward(packed.data(), packed.size(), nothing), part);
}

void check_refused(const std::vector<uint8_t> &packed, const std::string &part) {
  CHECK_THROWS(packed_shape(packed.data(), packed.size()), part);
  check_call_refused(packed, part);
}

TEST(truncated_and_longer_buffers_are_refused) {
  const auto packed = good();
  for (size_t size = 0; size < packed.size(); size += size < kRecordsEnd ? 1 : 37) {
    WITH("size ", size);
    check_refused({packed.begin(), packed.begin() + static_cast<long>(size)}, "expected");
  }
  auto longer = packed;
  longer.push_back(0);
  check_refused(longer, "expected");
}

TEST(lying_headers_are_refused) {
  check_refused(with(good(), kMagicAt, 0), "bad magic number");
  check_refused(with(good(), kMagicAt + 4, 0), "bad magic number");
  check_refused(with(good(), kVersionAt, 99), "version");
  check_refused(with(good(), kBackendAt, 99), "layout");
  check_refused(with(good(), kContractAt, 1), "numeric contract");
  for (size_t offset : {kTotalAt + 0, kTotalAt + 4})
    check_refused(with(good(), offset, 0x7fffffff), "expected");
  for (size_t offset : {kInputSizeAt, kHiddenSizeAt, kLayersAt, kDirectionsAt})
    for (uint32_t size : {0u, 65536u, 0x7fffffffu, 0x80000000u, 0xffffffffu}) {
      WITH("offset ", offset, " size ", size);
      check_refused(with(good(), offset, size), "must be in");
    }
  for (size_t offset : {kInputSizeAt, kHiddenSizeAt})
    check_refused(with(good(), offset, 4), "expected");
  check_refused(with(good(), kLayersAt, 4), "precision"); // weights taken for records
  check_refused(with(good(), kProjSizeAt, 8), "expected");
  check_refused(with(good(), kHiddenSizeAt, 65535), "expected");
  check_refused(with(good(), kProjSizeAt, 0), "expected");
  check_refused(with(good(), kProjSizeAt, 9), "proj_size");
  check_refused(with(good(), kDirectionsAt, 3), "num_directions");
}

// Calls test(place of a matrix's record, counted from the first one's).
template <class Test> void for_each_record(const Test &test) {
  for (size_t record = 0; record < 4; ++record)
    for (size_t matrix = 0; matrix < 3; ++matrix) {
      WITH("record ", record, " matrix ", matrix);
      test(record * kRecordBytes + matrix * kMatrixBytes);
    }
}

TEST(lying_records_are_refused) {
  for_each_record([](size_t at) {
    check_refused(with(good(), kWeightTypeAt + at, 3), "arithmetic");
    for (uint32_t type : {0u, 2u, 4u, 0xffffffffu})
      check_refused(with(good(), kWeightTypeAt + at, type), "there is no precision");
    for (uint32_t type : {0u, 3u, 4u, 0xffffffffu})
      check_refused(with(good(), kActivationTypeAt + at, type), "there is no precision");
    check_refused(with(good(), kActivationTypeAt + at, 2), "arithmetic");
    for (uint32_t arithmetic : {2u, 3u, 4u, 7u, 0xffffffffu})
      check_refused(with(good(), kFormAt + at, arithmetic), "arithmetic");
    for (uint32_t arithmetic : {0u, 1u, 3u, 7u})
      check_refused(with(good(kInt16), kFormAt + at, arithmetic), "arithmetic");
    for (uint32_t arithmetic : {0u, 1u, 2u, 7u})
      check_refused(with(good(kFloat32), kFormAt + at, arithmetic), "arithmetic");
    for (uint32_t most : {0u, 127u, 254u, 256u, 99999u, 0xffffff81u})
      check_refused(with(good(), kActivationMaxAt + at, most), "range");
    for (uint32_t most : {0u, 32768u, 99999u, 0xffffffffu})
      check_refused(with(good(kInt16), kActivationMaxAt + at, most), "range");
    for (uint32_t most : {0u, 2u, 127u, 0xffffffffu})
      check_refused(with(good(kFloat32), kActivationMaxAt + at, most), "range");
  });
}

// Of layers and directions in their order: 0, 0 reverse, 1, 1 reverse.
TEST(tables_elsewhere_are_refused) {
  const auto table = with_tables(good_stack(kFloat32), kTable, 2).packed();
  const auto as_table = [](const std::vector<uint8_t> &packed, size_t at) {
    return with(with(packed, kActivationTypeAt + at, 4), kFormAt + at, 5);
  };
  const std::string only = ": only weight_ih of the first layer can be a table";
  check_refused(as_table(table, kMatrixBytes), "weight_hh_l0" + only);
  check_refused(as_table(table, 2 * kMatrixBytes), "weight_hr_l0" + only);
  check_refused(as_table(table, 2 * kRecordBytes), "weight_ih_l1" + only);
  check_refused(as_table(good(kFloat32), 0), "tables or neither");
  check_refused(as_table(good(kFloat32), kRecordBytes), "tables or neither");
  for (uint32_t form : {0u, 1u, 2u, 3u, 4u, 6u, 7u})
    check_refused(with(table, kFormAt, form), "arithmetic");
  check_refused(with(table, kWeightTypeAt, 1), "there is no precision");
  check_refused(with(table, kWeightTypeAt, 4), "arithmetic");
  check_refused(with(with(table, kWeightTypeAt, 4), kFormAt, 6), "expected");
  check_refused(with(table, kActivationMaxAt, 2), "range");
  check_refused(with(table, kBlocksAt, k8x4), "positions");
  check_refused(with(table, kRowSumBytesAt, 4), "row sums of");
  check_refused(with(table, kScaleColumnsAt, 32), "scales of");
  auto factors = with(as_table(with(table, kWeightTypeAt + 32, 2), 32), kRanksAt, 3);
  check_refused(with(factors, kActivationMaxAt + 32, 1), "factors");
}

TEST(lying_row_sums_are_refused) {
  for_each_record([](size_t at) {
    for (uint32_t bytes : {0u, 1u, 3u, 8u, 0xffffffffu})
      check_refused(with(good(), kRowSumBytesAt + at, bytes), "row sums of");
    check_refused(with(good(), kRowSumBytesAt + at, 4), "expected");
    for (Precision precision : {kInt16, kFloat32})
      for (uint32_t bytes : {1u, 2u, 4u})
        check_refused(with(good(precision), kRowSumBytesAt + at, bytes), "row sums of");
  });
}

TEST(lying_ranks_are_refused) {
  const auto factors = in_factors(good_stack(kInt8), 1).packed();
  for (size_t record = 0; record < 4; ++record)
    for (size_t kind = 0; kind < 3; ++kind) {
      const size_t at = record * kRecordBytes + kRanksAt + kind * 4;
      WITH("record ", record, " kind ", kind);
      check_refused(with(good(), at, 3), "there is no precision"); // V has no record
      for (uint32_t rank : {65536u, 0xffffffffu})
        check_refused(with(factors, at, rank), "rank of factors");
      const auto rank = read<uint32_t>(factors.data() + at, 0);
      if (rank)
        check_refused(with(factors, at, rank + 40), "expected");
    }
}

TEST(lying_scale_groups_are_refused) {
  for_each_record([](size_t at) {
    for (Precision precision : kBlockPrecisions)
      for (uint32_t columns : {1u, 32u, 64u, 128u})
        check_refused(with(good(precision), kScaleColumnsAt + at, columns), "scales of");
    for (uint32_t columns : {0u, 16u, 63u, 256u, 0xffffffffu})
      check_refused(with(good(kInt4), kScaleColumnsAt + at, columns), "scales of");
    check_refused(with(good(kInt4), kBlocksAt + at, k8x4), "scales of");
    for (uint32_t bytes : {0u, 2u, 8u})
      check_refused(with(good(kInt4), kRowSumBytesAt + at, bytes), "row sums of");
    check_refused(with(good(kInt4), kFormAt + at, 1), "arithmetic");
  });
}

TEST(lying_layouts_are_refused) {
  for_each_record([](size_t at) {
    for (Precision precision : {kInt8, kInt16}) {
      WITH("precision ", precision_name(precision));
      for (uint32_t positions : {1u, 0xffffffffu})
        check_refused(with(good(precision), kPositionsAt + at, positions), "positions");
      check_refused(with(good(precision), kBlocksAt + at, k8x4), "expected");
    }
    for (Precision precision : kBlockPrecisions) {
      WITH("sparse, precision ", precision_name(precision));
      const auto packed = good(precision, true);
      const auto most = read<uint32_t>(packed.data() + kPositionsAt + at, 0); // nothing is zero
      for (uint32_t value : {0u, 4u, 8u << 16, 8u << 16 | 5, 12u << 16 | 4, 0xffffffffu})
        check_refused(with(packed, kBlocksAt + at, value), "positions");
      for (uint32_t positions : {most + 1, 0xffffffffu})
        check_refused(with(packed, kPositionsAt + at, positions), "positions");
      for (uint32_t positions : {0u, most - 1})
        check_refused(with(packed, kPositionsAt + at, positions), "expected");
    }
    const auto empty = in_blocks(good_stack(kFloat32), {8, 4}, 0.0f).packed();
    check_refused(with(empty, kBlocksAt + at, 0), "expected");
  });
}

// Sizes that need as many bytes as the true ones are believed, and read within their bounds.
TEST(believed_lies_are_harmless) {
  const std::pair<size_t, uint32_t> lies[] = {
      {kInputSizeAt, 8}, {kHiddenSizeAt, 12}, {kProjSizeAt, 4}};
  for (const auto &[offset, size] : lies)
    for_each_isa([&, offset = offset, size = size](std::string_view) {
      WITH("offset ", offset);
      const auto packed = with(good(), offset, size);
      const LstmShape shape = packed_shape(packed.data(), packed.size());
      const Sequence sequence = random_sequence(shape, 2, 3, 4);
      CHECK(forward(packed, sequence).y.size() == static_cast<size_t>(6 * sequence.y_columns()));
    });
}

// Whatever is not refused is read within its bounds.
TEST(changed_bytes_are_refused_or_harmless) {
  for (const auto &original : {good(kInt8), good(kInt16), good(kFloat32), good(kInt4),
                               good(kInt8, true), good(kInt16, true), good(kFloat32, true)})
    for (size_t offset = 0; offset < kRecordsEnd; ++offset)
      for (int change : {0x01, 0x02, 0x80, 0xff}) {
        auto packed = original;
        packed[offset] = static_cast<uint8_t>(packed[offset] ^ change);
        try {
          PackedStack(packed.data(), packed.size());
        } catch (const Error &) {
        }
      }
}

TEST(impossible_sizes_are_refused) {
  CHECK_THROWS(validate(shape_of(0, 1)), "input_size");
  CHECK_THROWS(validate(shape_of(-1, 1)), "input_size");
  CHECK_THROWS(validate(shape_of(1, 0)), "hidden_size");
  CHECK_THROWS(validate(shape_of(1, 65536)), "hidden_size");
  CHECK_THROWS(validate(shape_of(65536, 1)), "input_size");
  CHECK_THROWS(validate(shape_of(1, 8, 8)), "proj_size");
  CHECK_THROWS(validate(shape_of(1, 8, -1)), "proj_size");
  CHECK_THROWS(validate(shape_of(1, 8, 0, 0)), "num_layers");
  CHECK_THROWS(validate(shape_of(1, 8, 0, 1, 0)), "num_directions");
  CHECK_THROWS(validate(shape_of(1, 8, 0, 1, 3)), "num_directions");
  CHECK_THROWS(validate(shape_of(1, 32768, 0, 2, 2)), "output size");
  validate(shape_of(65535, 65535, 65534, 1, 2, kFloat32));
}

TEST(zero_scales_and_absent_bias_are_accepted) {
  SourceStack zero = random_stack(shape_of(5, 9), Weights::any, 3);
  zero.for_each_matrix([](SourceMatrix &m) { m.scales.assign(m.scales.size(), 0.0f); });
  zero.layers[0].bias.assign(zero.layers[0].bias.size(), 0.0f);
  const HeldStack held = zero.held();
  auto views = held.views();
  views[0].bias = nullptr;
  const PackPlan plan(zero.shape, views.data());
  std::vector<uint8_t> packed(plan.bytes());
  plan.write(packed.data(), packed.size());
  CHECK(packed == zero.packed());
}

} // namespace
} // namespace lstm_fastkernels
