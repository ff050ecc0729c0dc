#include "weights/packed_origin.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "weights/packed_stack.h"

namespace lstm_fastkernels {
namespace {

// Each step maps the states and the words one to one, and brings high bits down: a word that
// changes alone always shows, and the top bits of two words do not cancel.
class Hash {
public:
  void add(const void *data, size_t bytes) {
    add_word(bytes);
    const uint8_t *const from = static_cast<const uint8_t *>(data);
    const size_t words = bytes / sizeof(uint64_t), rest = bytes % sizeof(uint64_t);
    for (size_t i = 0; i < words; ++i)
      add_word(read<uint64_t>(from, static_cast<int64_t>(i)));
    if (!rest)
      return;
    uint64_t last = 0;
    std::memcpy(&last, from + words * sizeof last, rest);
    add_word(last);
  }
  void add(std::string_view text) { add(text.data(), text.size()); }

  std::string digits() const {
    std::string text;
    for (int shift = 60; shift >= 0; shift -= 4)
      text += "0123456789abcdef"[state_ >> shift & 15];
    return text;
  }

private:
  void add_word(uint64_t word) {
    state_ = (state_ ^ word) * 0x9e3779b97f4a7c15;
    state_ ^= state_ >> 32;
  }

  uint64_t state_ = 0xcbf29ce484222325;
};

bool has_precisions(const PackedStack &stack, const std::vector<Precision> &precisions) {
  const std::vector<MatrixName> names = matrix_names(stack.shape);
  return std::equal(names.begin(), names.end(), precisions.begin(), precisions.end(),
                    [&](const MatrixName &of, Precision precision) {
                      const PackedLayer &layer = stack.layers[static_cast<size_t>(of.cell)];
                      return matrix_of(layer, of.kind).precision == precision;
                    });
}

} // namespace

std::string hash_of(const std::map<std::string, TensorView> &tensors) {
  Hash hash;
  for (const auto &[name, tensor] : tensors) {
    std::string form = name + " " + tensor.dtype;
    for (const int64_t size : tensor.shape)
      form += " " + std::to_string(size);
    hash.add(form);
    hash.add(tensor.data, tensor.bytes);
  }
  return hash.digits();
}

std::optional<PackedStack> packed_from(const void *packed, size_t bytes, const std::string &hash,
                                       const LstmShape &shape,
                                       const std::vector<Precision> &precisions,
                                       const std::map<std::string, TensorView> &tensors) {
  if (!is_of_this_version(packed, bytes) || hash != hash_of(tensors))
    return std::nullopt;
  PackedStack stack(packed, bytes);
  if (!(stack.shape == shape) || !has_precisions(stack, precisions))
    return std::nullopt;
  return stack;
}

} // namespace lstm_fastkernels
