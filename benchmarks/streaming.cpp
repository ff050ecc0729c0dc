// Streaming steps of a saved LSTM in C++, each on what the one before left. streaming.py compiles
// it against the installed library; LSTM_FASTKERNELS_ISA picks the instruction set.
//
//   streaming FILE SECONDS STEPS
//
// Prints JSON, microseconds: of a step, the median of slots of a few milliseconds; and of so many
// more steps, each timed by itself, with what the clock takes.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <random>
#include <vector>

#include <lstm_fastkernels/file.h>

namespace {

constexpr double kSlotSeconds = 0.002;
constexpr size_t kInputs = 50;

double seconds() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

class Stream {
public:
  explicit Stream(const char *path)
      : lstm_(lstm_fastkernels::Lstm::load(lstm_fastkernels::File::open(path))),
        state_(lstm_.shape()), columns_(static_cast<size_t>(lstm_.shape().input_size)),
        x_(kInputs * columns_),
        y_(static_cast<size_t>(lstm_.shape().num_directions * lstm_.shape().output_size())) {
    std::mt19937 generator(1);
    std::normal_distribution<float> distribution;
    for (float &value : x_)
      value = distribution(generator);
  }

  // Input i, and behind the last one the first again.
  void step(size_t i) { lstm_.step(x_.data() + i % kInputs * columns_, state_, y_.data()); }

private:
  lstm_fastkernels::Lstm lstm_;
  lstm_fastkernels::State state_;
  size_t columns_;
  std::vector<float> x_, y_;
};

double microseconds_in_a_slot(Stream &stream) {
  const double start = seconds();
  for (int rounds = 1;; ++rounds) {
    for (size_t i = 0; i < kInputs; ++i)
      stream.step(i);
    const double taken = seconds() - start;
    if (taken >= kSlotSeconds)
      return taken / (rounds * kInputs) * 1e6;
  }
}

double median_microseconds(Stream &stream, double wanted_seconds) {
  microseconds_in_a_slot(stream); // brings the weights into the caches
  std::vector<double> times;
  for (const double start = seconds(); times.empty() || seconds() - start < wanted_seconds;)
    times.push_back(microseconds_in_a_slot(stream));
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

std::vector<double> microseconds_of_each(Stream &stream, size_t steps) {
  std::vector<double> times(steps);
  for (size_t i = 0; i < steps; ++i) {
    const double start = seconds();
    stream.step(i);
    times[i] = (seconds() - start) * 1e6;
  }
  return times;
}

} // namespace

int main(int count, char **arguments) {
  if (count != 4) {
    std::fprintf(stderr, "usage: streaming FILE SECONDS STEPS\n");
    return 2;
  }
  try {
    Stream stream(arguments[1]);
    std::printf("{\"median_us\": %.4f, \"each_us\": [",
                median_microseconds(stream, std::atof(arguments[2])));
    const char *separator = "";
    for (const double us : microseconds_of_each(stream, std::strtoull(arguments[3], nullptr, 10))) {
      std::printf("%s%.3f", separator, us);
      separator = ", ";
    }
    std::printf("]}\n");
  } catch (const std::exception &error) {
    std::fprintf(stderr, "streaming: %s\n", error.what());
    return 1;
  }
}
