// What stands behind the records of a packed form is checked before kernels believe it.
#include <cstring>

#include "check.h"
#include "stack.h"
#include "support.h"
#include "tampered.h"
#include "weights/packed.h"
#include "weights/packed_stack.h"

namespace lstm_fastkernels {
namespace {

using Bytes = std::vector<uint8_t>;

// Calls test() with each word past the records changed, one after the other.
template <class Test>
void for_each_change(Bytes &packed, const LstmShape &shape, const Test &test) {
  const size_t begin = static_cast<size_t>(header_size(shape));
  for (size_t at = begin; at < packed.size(); at += sizeof(uint32_t)) {
    const auto word = read<uint32_t>(packed.data() + at, 0);
    const uint32_t others[] = {word ^ 1, word ^ 0x80, word ^ 0x80008000, word + 0x10000,
                               ~uint32_t{0}};
    const uint32_t other = others[at / sizeof(uint32_t) % 5];
    WITH("at ", at, " of ", packed.size(), ": ", other, " for ", word);
    write(packed.data() + at, 0, other);
    test();
    write(packed.data() + at, 0, word);
  }
}

TEST(changed_words_are_refused_or_harmless) {
  int64_t refused = 0, taken = 0;
  for (const SourceStack &stack : kinds_of_stacks()) {
    if (stack.shape.hidden_size > 100)
      continue;
    Bytes packed = stack.packed();
    CHECK(runs_the_same_everywhere(packed));
    for_each_change(packed, stack.shape,
                    [&] { ++(runs_the_same_everywhere(packed) ? taken : refused); });
  }
  CHECK(refused > 1000);
  CHECK(taken > 1000); // other weights are weights, too
}

// Another column may be a column, too; but slices are what the sizes of strips leave no choice for.
TEST(no_change_of_a_slice_passes) {
  int64_t tried = 0;
  for (const SourceStack &source : kinds_of_stacks()) {
    Bytes packed = source.packed();
    const PackedStack stack(packed.data(), packed.size());
    for (const MatrixName &of : matrix_names(stack.shape)) {
      const Matrix &m = matrix_of(stack.layers[static_cast<size_t>(of.cell)], of.kind);
      if (!m.is_sparse())
        continue;
      const int64_t begin = m.slices - packed.data();
      const int64_t slices = divide_up(m.num_tiles * kStripsPerTile, kSliceStrips);
      for (int64_t at = 0; at < slices * int64_t{sizeof(Slice)}; ++at)
        for (int change : {0x01, 0x02, 0x40, 0x80, 0xff}) {
          WITH(of.name, " byte ", at, " change ", change);
          uint8_t &byte = packed[static_cast<size_t>(begin + at)];
          byte = static_cast<uint8_t>(byte ^ change);
          CHECK_THROWS(PackedStack(packed.data(), packed.size()), of.name + ": ");
          byte = static_cast<uint8_t>(byte ^ change);
          ++tried;
        }
    }
  }
  CHECK(tried > 1000);
}

// A stack whose packed form is changed, and put back.
struct Tampered {
  explicit Tampered(const SourceStack &source)
      : packed(source.packed()), good(packed), stack(packed.data(), packed.size()) {}

  // write(a section, i, value) must be refused with this message.
  template <class T>
  void check(const uint8_t *section, int64_t i, T value, const std::string &part) {
    write(packed.data() + (section - packed.data()), i, value);
    CHECK_THROWS(PackedStack(packed.data(), packed.size()), part);
    packed.assign(good.begin(), good.end()); // at the same address
  }

  Bytes packed;
  const Bytes good;
  const PackedStack stack;
};

TEST(errors_name_the_matrix_and_say_what_is_wrong) {
  Tampered dense(random_stack(shape_of(5, 9, 3, 2, 2), Weights::pair_safe, 1));
  const PackedLayer &layer = dense.stack.layers[3];
  const std::string hh = "weight_hh_l1_reverse: ", hr = "weight_hr_l1_reverse: ";
  dense.check<int8_t>(layer.hh.tiles, 3, 1, hh + "weights of padding");     // of 3 columns
  dense.check<int8_t>(layer.hr.tiles, 3 * 4, 1, hr + "weights of padding"); // of 3 rows
  dense.check<int16_t>(layer.hh.tiles, 0, 0x7f7f, hh + "its weights need another arithmetic");
  dense.check<int16_t>(layer.hh.row_sums, 3, 0x7fff, hh + "its row sums are not those");
  for (float scale : {-1.0f, float_of(0x7f800000), float_of(0xffc00000)})
    dense.check(layer.hr.scales, 2, scale, hr + "scale of row 2 is not possible");
  dense.check(layer.hr.scales, 3, 1.0f, hr + "scale of padding");
  dense.check(layer.bias, 0, float_of(0x7f800001), "bias_l1_reverse: value of row 0");
  dense.check(layer.bias, 33, 1.0f, "bias_l1_reverse: value of padding"); // of unit 9

  Tampered any(random_stack(shape_of(5, 9), Weights::any, 1));
  any.check<uint32_t>(any.packed.data() + 64, 2, 0, "weight_ih_l0: its weights need another arith");
  Tampered wide(random_stack(shape_of(151, 9, 0, 1, 1, kInt16), Weights::any, 1));
  wide.check<int32_t>(wide.packed.data() + 64, 3, 32766,
                      "weight_ih_l0: its weights need another a");
  Tampered floats(random_stack(shape_of(5, 9, 0, 1, 1, kFloat32), Weights::any, 1));
  const Matrix &ih = floats.stack.layers[0].ih;
  floats.check(ih.tiles, 0, float_of(0x7f800000), "weight_ih_l0: weights must be finite");
  floats.check(ih.tiles, 5 * 32 + 1, 1.0f, "weight_ih_l0: weights of padding"); // of unit 9
  floats.check(ih.scales, 0, 2.0f, "weight_ih_l0: scale of row 0");
}

TEST(errors_name_the_table) {
  const SourceStack stack = random_stack(shape_of(5, 9, 0, 1, 2), Weights::any, 1);
  Tampered floats(with_tables(stack, kTable, 2)), halves(with_tables(stack, kHalfTable, 2));
  const std::string name = "weight_ih_l0_reverse: ";
  const uint8_t *const table = floats.stack.layers[1].ih.tiles;
  const uint8_t *const half_table = halves.stack.layers[1].ih.tiles;
  const int64_t last = 4 * 64 + 32 + 24, padding = last + 1; // of id 4: unit 8 of o, unit 9
  for (uint32_t bits : {0x7f800000u, 0xff800000u, 0x7fc00000u})
    floats.check(table, last, float_of(bits), name + "weights must be finite");
  for (int bits : {0x7c00, 0xfc00, 0x7e00})
    halves.check(half_table, last, static_cast<uint16_t>(bits), name + "weights must be finite");
  floats.check(table, padding, 1.0f, name + "weights of padding must be zero");
  halves.check<uint16_t>(half_table, padding, 1, name + "weights of padding must be zero");
  floats.check(floats.stack.layers[1].ih.scales, 0, 2.0f, name + "scale of row 0");
}

// Of 12 strips in all: the second slice has 4, and repeats the last of them.
TEST(slices_cover_each_strip_once) {
  Tampered sparse(in_blocks(random_stack(shape_of(9, 20), Weights::any, 1), {8, 4}, 1.0f));
  const Matrix &ih = sparse.stack.layers[0].ih;
  const auto slice = read<Slice>(ih.slices, 0);
  const std::string name = "weight_ih_l0: ";
  for (int strip : {int{slice.strips[1]}, 12, 63, 64, 255})
    sparse.check(ih.slices, 8, static_cast<uint8_t>(strip), name + "slices must take each strip");
  sparse.check<uint8_t>(ih.slices, 16 + 15, 0, name + "slices must take each strip");
  for (uint32_t start : {1u, 0xffffffffu})
    sparse.check(ih.slices, 0, start, name + "slices must follow each other");
  for (uint32_t length : {0u, 2u, 0xffffffffu})
    sparse.check(ih.slices, 1, length, name + "slices must follow each other");
  sparse.check(ih.slices, 5, 2u, name + "slices must take all of its 6 positions");
  sparse.check<uint16_t>(ih.columns, 0, 3, name + "column 12 is not among its 9");
  sparse.check<uint16_t>(ih.columns, 8, 0, name + "blocks of a strip must lie from left to right");
  sparse.check<uint16_t>(ih.columns, 31 + 8, 2, name + "a repeated strip must be the same");
  sparse.check<uint8_t>(ih.blocks, 6 * 8 * 32 - 32, 77, name + "a repeated strip must be the same");
}

} // namespace
} // namespace lstm_fastkernels
