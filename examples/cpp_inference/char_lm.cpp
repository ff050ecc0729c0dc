#include "char_lm.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>

using lstm_fastkernels::Error;
using lstm_fastkernels::ErrorCode;
using lstm_fastkernels::File;
using lstm_fastkernels::Lstm;
using lstm_fastkernels::State;

namespace {

std::string to_string(const std::vector<int64_t> &shape) {
  std::string text = "[";
  for (const int64_t size : shape)
    text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

std::vector<float> read(const File &file, const std::string &name,
                        const std::vector<int64_t> &shape) {
  const std::vector<int64_t> found = file.tensor(name).shape;
  if (found != shape)
    throw Error(ErrorCode::invalid_file, file.name() + ": " + name + " is " + to_string(found) +
                                             ", the model needs " + to_string(shape));
  return file.float32(name);
}

} // namespace

CharLm::CharLm(const File &file) : lstm_(Lstm::load(file, "lstm")) {
  if (lstm_.shape().num_directions != 1)
    throw Error(ErrorCode::invalid_file, file.name() + ": a bidirectional LSTM cannot predict");
  const int64_t hidden_size = lstm_.shape().output_size();
  if (!lstm_.takes_ids())
    embedding_ = read(file, "embedding.weight", {kVocabularySize, lstm_.shape().input_size});
  else if (lstm_.shape().input_size != kVocabularySize)
    throw Error(ErrorCode::invalid_file, file.name() + ": its LSTM reads other tokens");
  output_bias_ = read(file, "output.bias", {kVocabularySize});

  // Transposed, so that the sums of all tokens grow side by side, in vector registers.
  const std::vector<float> weight = read(file, "output.weight", {kVocabularySize, hidden_size});
  output_weight_.reserve(weight.size());
  for (int64_t k = 0; k < hidden_size; ++k)
    for (int token = 0; token < kVocabularySize; ++token)
      output_weight_.push_back(weight[token * hidden_size + k]);
}

void CharLm::step(int token, State &state, std::vector<float> &hidden) const {
  hidden.resize(lstm_.shape().output_size());
  const int32_t id = token;
  if (lstm_.takes_ids())
    lstm_.step_ids(&id, state, hidden.data());
  else
    lstm_.step(&embedding_[token * lstm_.shape().input_size], state, hidden.data());
}

std::array<double, kVocabularySize>
CharLm::log_probabilities(const std::vector<float> &hidden) const {
  std::array<double, kVocabularySize> logits;
  std::copy(output_bias_.begin(), output_bias_.end(), logits.begin());
  const double *weight = output_weight_.data();
  for (const double h : hidden) {
    for (double &logit : logits)
      logit += h * *weight++;
  }

  const double highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const double logit : logits)
    sum += std::exp(logit - highest);
  for (double &logit : logits)
    logit -= highest + std::log(sum);
  return logits;
}
