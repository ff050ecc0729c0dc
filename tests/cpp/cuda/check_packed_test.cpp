// Packed bytes for CUDA devices that someone changed: refused on the host, or harmless on a device.
#include <cstring>

#include "check.h"
#include "cuda/host/device_stack.h"
#include "on_device.h"
#include "stack.h"
#include "support.h"
#include "weights/packed_stack.h"

namespace lstm_fastkernels {
namespace {

// A stack's packed form in host memory, which is changed and put back.
class HostCopy {
public:
  explicit HostCopy(const SourceStack &source)
      : packed_(StackOnDevice(source).packed()), header_(cuda::header_bytes(source.shape)),
        copy_(packed_.size()), stack(packed_.data(), header_, copy_.data(), packed_.size()) {
    restore();
  }

  void check() const { cuda::check_packed(packed_.data(), header_, copy_.data(), packed_.size()); }
  // write(a section, i, value) must be refused with this message.
  template <class T, class V>
  void refuses(const T *section, int64_t i, V value, const std::string &part) {
    write(reinterpret_cast<uint8_t *>(const_cast<T *>(section)), i, value);
    CHECK_THROWS(check(), part);
    restore();
    check();
  }
  // Calls test(the changed bytes) for each word past the header.
  template <class Test> void for_each_change(const Test &test) {
    for (size_t at = header_; at < packed_.size(); at += sizeof(uint32_t)) {
      const auto word = read<uint32_t>(packed_.data() + at, 0);
      const uint32_t others[] = {word ^ 1, word ^ 0x80008000, word + 0x10000, ~uint32_t{0}};
      const uint32_t other = others[at / sizeof(uint32_t) % 4];
      WITH("at ", at, " of ", packed_.size(), ": ", other, " for ", word);
      write(copy_.data() + at, 0, other);
      test(std::vector<uint8_t>(copy_.data(), copy_.data() + packed_.size()));
      restore();
    }
  }
  bool is_accepted() const {
    try {
      check();
      return true;
    } catch (const Error &) {
      return false;
    }
  }

private:
  void restore() { std::memcpy(copy_.data(), packed_.data(), packed_.size()); }

  std::vector<uint8_t> packed_;
  size_t header_;
  DeviceMemory copy_;

public:
  const cuda::PackedStack stack; // of the copy
};

TEST(what_pack_writes_passes) {
  for (Precision precision : kPrecisions)
    for (int64_t hidden : {1, 15, 17, 40})
      for (float density : {0.0f, 0.3f, 1.0f}) {
        WITH("hidden ", hidden, " density ", density, " precision ", precision_name(precision));
        const SourceStack stack =
            random_stack(shape_of(67, hidden, hidden / 2, 2, 2, precision), Weights::any, 7);
        HostCopy(in_blocks(stack, {8, 4}, density)).check();
      }
}

TEST(errors_name_the_matrix_and_say_what_is_wrong) {
  const TypedShape shape = shape_of(40, 20, 10, 2, 2);
  HostCopy dense(random_stack(shape, Weights::any, 6));
  const cuda::PackedLayer &layer = dense.stack.layers[3];
  const std::string hh = "weight_hh_l1_reverse: ", hr = "weight_hr_l1_reverse: ";
  for (uint32_t start : {1u, 0xffffffffu})
    dense.refuses(layer.hh.starts, 0, start, hh + "bands must follow each other");
  for (uint32_t start : {0u, 9u, 0xffffffffu})
    dense.refuses(layer.hh.starts, 2, start, hh + "");
  dense.refuses(layer.hh.starts, 8, 7u, hh + "bands must take all of its 8 fragments");
  for (int column : {1, 0xffff})
    dense.refuses(layer.hh.columns, 0, static_cast<uint16_t>(column),
                  hh + "columns must increase within a band and be among its 10");
  dense.refuses(layer.hh.row_sums, 3, 1 << 20, hh + "its row sums are not those of its weights");
  dense.refuses(layer.hh.fragments, 0, int8_t{-128}, hh + "its row sums");
  dense.refuses(layer.hh.fragments, 16 + 2, int8_t{1}, hh + "weights of padding"); // column 10
  dense.refuses(layer.hr.fragments, 10 * 64 % 512 + 4, int8_t{1}, hr + "weights of padding");
  dense.refuses(layer.hr.scales, 2, -1.0f, hr + "scale of row 2 is not possible");
  dense.refuses(layer.bias, 0, float_of(0x7f800000), "bias_l1_reverse: value of row 0");

  HostCopy int4(random_stack(shape_of(40, 20, 0, 1, 1, kInt4), Weights::any, 6));
  for (int weight : {8, -9})
    int4.refuses(int4.stack.layers[0].ih.fragments, 0, static_cast<int8_t>(weight),
                 "weight_ih_l0: weights must be in -8..7");

  HostCopy floats(random_stack(shape_of(40, 20, 0, 1, 1, kFloat32), Weights::any, 6));
  const cuda::DeviceMatrix &ih = floats.stack.layers[0].ih;
  floats.refuses(ih.fragments, 5, float_of(0xffc00000), "weight_ih_l0: weights must be finite");
  floats.refuses(ih.scales, 1, 0.5f, "weight_ih_l0: scale of row 1");
  floats.refuses(ih.columns, 1, uint16_t{0}, "weight_ih_l0: columns must increase");
}

TEST(what_passes_runs_within_its_bounds) {
  int64_t refused = 0, taken = 0;
  for (Precision precision : kPrecisions)
    for (int64_t proj : {0, 3}) {
      WITH("precision ", precision_name(precision), " proj ", proj);
      const TypedShape shape = shape_of(5, 9, proj, 1, 1, precision);
      HostCopy copy(in_blocks(random_stack(shape, Weights::any, 8), {8, 4}, 0.5f));
      const Sequence sequence = random_sequence(shape, 2, 3, 9);
      int64_t n = 0;
      copy.for_each_change([&](const std::vector<uint8_t> &changed) {
        ++(copy.is_accepted() ? taken : refused);
        if (copy.is_accepted() && ++n % 7 == 0)
          forward(StackOnDevice(shape, changed), sequence);
      });
    }
  CHECK(refused > 100);
  CHECK(taken > 100); // other weights are weights, too
}

} // namespace
} // namespace lstm_fastkernels
