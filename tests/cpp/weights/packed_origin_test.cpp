// The hash of canonical tensors: it notices every change.
#include "weights/packed_origin.h"

#include <set>

#include "check.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

using Tensors = std::map<std::string, TensorView>;

TensorView view(const std::string &name, const std::string &dtype, std::vector<int64_t> shape,
                const std::vector<uint8_t> &data) {
  return {name, dtype, std::move(shape), data.data(), data.size()};
}

// tests/io/test_packed_files.py computes the same from what docs/file_format.md says.
TEST(hashes_are_those_of_the_format) {
  const std::vector<uint8_t> bytes = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  CHECK(hash_of({}) == "cbf29ce484222325");
  CHECK(hash_of({{"weight", view("weight", "U8", {3, 4}, bytes)}}) == "18984f8fca00e898");
}

TEST(hashes_change_with_every_bit) {
  Random random(301);
  for (const size_t size : {1, 7, 8, 9, 64, 129}) {
    std::vector<uint8_t> data(size);
    for (uint8_t &byte : data)
      byte = static_cast<uint8_t>(random.bits());
    const auto hash = [&] {
      return hash_of({{"a", view("a", "U8", {static_cast<int64_t>(size)}, data)}});
    };
    std::set<std::string> hashes = {hash()};
    for (size_t bit = 0; bit < 8 * size; ++bit) {
      data[bit / 8] = static_cast<uint8_t>(data[bit / 8] ^ 1 << bit % 8);
      hashes.insert(hash());
      data[bit / 8] = static_cast<uint8_t>(data[bit / 8] ^ 1 << bit % 8);
    }
    CHECK(hashes.size() == 8 * size + 1);
  }
}

// Changes of single words that could cancel: signs of two floats, words that change places.
TEST(hashes_change_with_pairs_of_words) {
  const size_t words = 24;
  std::vector<uint8_t> data(8 * words);
  for (size_t i = 0; i < data.size(); ++i)
    data[i] = static_cast<uint8_t>(i * 37);
  std::set<std::string> hashes;
  size_t count = 0;
  const auto hash = [&] { hashes.insert(hash_of({{"a", view("a", "F32", {48}, data)}})), ++count; };
  for (size_t a = 0; a < words; ++a)
    for (size_t b = 0; b < a; ++b)
      for (const int bit : {0x80, 0x40}) {
        for (size_t at : {8 * a + 7, 8 * b + 7})
          data[at] = static_cast<uint8_t>(data[at] ^ bit);
        hash();
        for (size_t at : {8 * a + 7, 8 * b + 7})
          data[at] = static_cast<uint8_t>(data[at] ^ bit);
        std::swap_ranges(&data[8 * a], &data[8 * a] + 8, &data[8 * b]);
        if (bit == 0x80)
          hash();
        std::swap_ranges(&data[8 * a], &data[8 * a] + 8, &data[8 * b]);
      }
  CHECK(hashes.size() == count);
}

TEST(hashes_tell_tensors_apart) {
  const std::vector<uint8_t> data(8, 1), none;
  const std::vector<Tensors> all = {
      {},
      {{"a", view("a", "U8", {8}, data)}},
      {{"b", view("b", "U8", {8}, data)}},
      {{"a", view("a", "I8", {8}, data)}},
      {{"a", view("a", "U8", {2, 4}, data)}},
      {{"a", view("a", "U8", {4, 2}, data)}},
      {{"a", view("a", "F32", {2}, data)}},
      {{"a", view("a", "F32", {0}, none)}},
      {{"a", view("a", "F32", {0}, none)}, {"b", view("b", "U8", {8}, data)}},
      {{"a", view("a", "U8", {8}, data)}, {"b", view("b", "F32", {0}, none)}},
  };
  std::set<std::string> hashes;
  for (const Tensors &tensors : all)
    hashes.insert(hash_of(tensors));
  CHECK(hashes.size() == all.size());
}

} // namespace
} // namespace lstm_fastkernels
