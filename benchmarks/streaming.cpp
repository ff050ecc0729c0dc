// Streaming steps of a saved LSTM in C++, each on what the one before left. streaming.py compiles
// it against the installed library; LSTM_FASTKERNELS_ISA picks the instruction set.
//
//   streaming FILE SECONDS
//
// Prints JSON: microseconds of a step, the median of slots of a few milliseconds.

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

double median_microseconds(const char *path, double wanted_seconds) {
  const auto lstm = lstm_fastkernels::Lstm::load(lstm_fastkernels::File::open(path));
  const auto &shape = lstm.shape();
  lstm_fastkernels::State state(shape);
  const size_t columns = static_cast<size_t>(shape.input_size);
  std::vector<float> x(kInputs * columns);
  std::vector<float> y(static_cast<size_t>(shape.num_directions * shape.output_size()));
  std::mt19937 generator(1);
  std::normal_distribution<float> distribution;
  for (float &value : x)
    value = distribution(generator);

  const auto slot = [&] {
    const double start = seconds();
    for (int rounds = 1;; ++rounds) {
      for (size_t i = 0; i < kInputs; ++i)
        lstm.step(x.data() + i * columns, state, y.data());
      const double taken = seconds() - start;
      if (taken >= kSlotSeconds)
        return taken / (rounds * kInputs) * 1e6;
    }
  };
  slot(); // brings the weights into the caches
  std::vector<double> times;
  for (const double start = seconds(); times.empty() || seconds() - start < wanted_seconds;)
    times.push_back(slot());
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

} // namespace

int main(int count, char **arguments) {
  if (count != 3) {
    std::fprintf(stderr, "usage: streaming FILE SECONDS\n");
    return 2;
  }
  try {
    std::printf("%.4f\n", median_microseconds(arguments[1], std::atof(arguments[2])));
  } catch (const std::exception &error) {
    std::fprintf(stderr, "streaming: %s\n", error.what());
    return 1;
  }
}
