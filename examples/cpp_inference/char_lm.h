// The demo's character model: embedding, LSTM, linear output (CharLM in examples/char_lm.py). The
// embedding may be in the LSTM, by fold_embedding.
#pragma once

#include <array>
#include <vector>

#include "lstm_fastkernels/file.h"
#include "text.h"

class CharLm {
public:
  // Throws lstm_fastkernels::Error for a file that has no such model.
  explicit CharLm(const lstm_fastkernels::File &file);

  // Before the first character.
  lstm_fastkernels::State start() const { return lstm_fastkernels::State(lstm_.shape()); }

  // Runs the LSTM on one character; `hidden` gets the output of its top layer.
  void step(int token, lstm_fastkernels::State &state, std::vector<float> &hidden) const;

  // Natural logarithms of the probabilities of what comes next.
  std::array<double, kVocabularySize> log_probabilities(const std::vector<float> &hidden) const;

private:
  lstm_fastkernels::Lstm lstm_;
  std::vector<float> embedding_;      // [kVocabularySize, input size]; none if it is folded
  std::vector<double> output_weight_; // [hidden size, kVocabularySize]
  std::vector<float> output_bias_;
};
