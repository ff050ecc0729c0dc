// A compressed LSTM in a C++ program: writes Python source, or says how well it predicts a text.
#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <exception>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <iterator>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "char_lm.h"

namespace {

using lstm_fastkernels::File;
using lstm_fastkernels::State;
using Clock = std::chrono::steady_clock;

// As in examples/quickstart.py, but for the random numbers.
constexpr char kPrompt[] = "class Parser:\n    def __init__(self, ";
constexpr int kLinesToWrite = 12;
constexpr int kLongestText = 800;
constexpr double kTemperature = 0.5;
constexpr uint32_t kSeed = 4;

constexpr char kUsage[] = "usage: char_lm MODEL write [PROMPT] [SEED]\n"
                          "       char_lm MODEL score [--outputs FILE] < TEXT\n";

struct UsageError {};

// In [0, 1), 53 bits. The distributions of <random> differ between standard libraries; this is also
// what NumPy's RandomState makes of the same seed.
double uniform(std::mt19937 &random) {
  const auto high = random() >> 5;
  const auto low = random() >> 6;
  return (high * 0x1p26 + low) * 0x1p-53;
}

int draw(const std::array<double, kVocabularySize> &log_probabilities, std::mt19937 &random) {
  std::array<double, kVocabularySize> sums;
  double sum = 0;
  for (int token = 0; token < kVocabularySize; ++token)
    sums[token] = sum += std::exp(log_probabilities[token] / kTemperature);
  // The last one needs no comparison.
  return std::upper_bound(sums.begin(), sums.end() - 1, uniform(random) * sum) - sums.begin();
}

// Continues the prompt; each character is printed when it is drawn, and fed back.
void write(const CharLm &model, const std::string &prompt, uint32_t seed) {
  const std::vector<int> tokens = encode(prompt);
  if (tokens.empty())
    throw std::runtime_error("the prompt is empty");
  State state = model.start();
  std::vector<float> hidden;
  for (const int token : tokens)
    model.step(token, state, hidden);

  std::cout << prompt;
  std::mt19937 random(seed);
  int lines = 0;
  for (int written = 0; written < kLongestText && lines < kLinesToWrite; ++written) {
    const int token = draw(model.log_probabilities(hidden), random);
    std::cout << decode(token) << std::flush;
    lines += token == kNewline;
    model.step(token, state, hidden);
  }
  std::cout << '\n';
}

double median_microseconds(std::vector<Clock::duration> &times) {
  const auto middle = times.begin() + times.size() / 2;
  std::nth_element(times.begin(), middle, times.end());
  return std::chrono::duration<double, std::micro>(*middle).count();
}

// Predicts each character but the first from those before it. `outputs` gets the LSTM's outputs, if
// it is open.
void score(const CharLm &model, const std::string &text, std::ofstream &outputs) {
  const std::vector<int> tokens = encode(text);
  if (tokens.size() < 2)
    throw std::runtime_error("the text has fewer than two characters: nothing to predict");
  State state = model.start();
  std::vector<float> hidden;
  std::vector<Clock::duration> step_times, times;
  double nats = 0;
  for (size_t k = 0; k + 1 < tokens.size(); ++k) {
    const auto begin = Clock::now();
    model.step(tokens[k], state, hidden);
    const auto stepped = Clock::now();
    nats -= model.log_probabilities(hidden)[tokens[k + 1]];
    const auto end = Clock::now();
    step_times.push_back(stepped - begin);
    times.push_back(end - begin);
    outputs.write(reinterpret_cast<const char *>(hidden.data()), hidden.size() * sizeof(float));
  }
  std::cout << std::fixed << std::setprecision(6) << nats / times.size() / std::log(2.0)
            << " bits per character\n"
            << times.size() << " characters\n"
            << std::setprecision(2) << median_microseconds(step_times) << " us an LSTM step, "
            << median_microseconds(times) << " us a character (medians)\n";
}

uint32_t parse_seed(const std::string &text) {
  uint32_t seed = 0;
  const char *end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, seed);
  if (parsed.ec != std::errc() || parsed.ptr != end)
    throw UsageError();
  return seed;
}

void run(const std::vector<std::string> &arguments) {
  const size_t count = arguments.size();
  if (count >= 2 && count <= 4 && arguments[1] == "write") {
    const std::string prompt = count > 2 ? arguments[2] : kPrompt;
    const uint32_t seed = count > 3 ? parse_seed(arguments[3]) : kSeed;
    write(CharLm(File::open(arguments[0])), prompt, seed);
  } else if ((count == 2 || (count == 4 && arguments[2] == "--outputs")) &&
             arguments[1] == "score") {
    const CharLm model(File::open(arguments[0]));
    const std::string text(std::istreambuf_iterator<char>(std::cin), {});
    std::ofstream outputs;
    if (count == 4)
      outputs.open(arguments[3], std::ios::binary);
    score(model, text, outputs);
    outputs.close();
    if (count == 4 && !outputs)
      throw std::runtime_error(arguments[3] + ": cannot be written");
  } else {
    throw UsageError();
  }
  if (!std::cout.flush())
    throw std::runtime_error("standard output: cannot be written");
}

} // namespace

int main(int argc, char **argv) {
  try {
    run(std::vector<std::string>(argv + 1, argv + argc));
    return 0;
  } catch (const UsageError &) {
    std::cerr << kUsage;
    return 2;
  } catch (const std::exception &error) {
    std::cerr << "char_lm: " << error.what() << '\n';
    return 1;
  }
}
