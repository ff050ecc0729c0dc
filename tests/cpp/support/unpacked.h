// Canonical tensors that come back from a packed form: the same tests for every layout.
#pragma once

#include <deque>
#include <map>
#include <string>
#include <vector>

#include "stack.h"
#include "stored.h"
#include "weights/unpacking.h"

namespace lstm_fastkernels {

// A layout: how it is packed, and what unpack() makes of that.
class Packing {
public:
  virtual ~Packing() = default;
  virtual Bytes pack(const LstmShape &shape, const CellWeights *cells) const = 0;
  // The packed bytes must live as long.
  virtual std::vector<UnpackedTensor> unpack(const Bytes &packed) const = 0;

  Bytes pack(const SourceStack &stack) const;
};

// Tensors that were unpacked, into memory that held marks.
struct Unpacked {
  Unpacked(const Packing &packing, const Bytes &packed);

  std::deque<Bytes> memory;
  std::map<std::string, TensorView> tensors;
};

// That they are those of a file, bit by bit.
void check_tensors(const Unpacked &unpacked, const std::map<std::string, StoredTensor> &expected);

// Every precision at awkward sizes; matrices in blocks, of some precisions each; low-rank ones.
void check_dense_tensors_come_back(const Packing &packing);
void check_blocks_come_back(const Packing &packing);
void check_mixtures_come_back(const Packing &packing);
// Without biases there are zeros for them.
void check_zero_biases_come_back(const Packing &packing);
// What is packed of what was unpacked is unpacked to the same, and packed to the same bytes.
void check_packing_again(const Packing &packing, const std::vector<SourceStack> &stacks);
// Whatever passes the checks can be unpacked: one word in `stride` is changed.
void check_changed_words(const Packing &packing, const std::vector<SourceStack> &stacks,
                         size_t stride);

} // namespace lstm_fastkernels
