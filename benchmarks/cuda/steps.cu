// Microseconds a time step of every way to run the steps of a layer, or of a stack: launches for
// each, each shape of the persistent kernel, and layers side by side. It is what persistent.cu's
// order of preference is to be read from.
//
//     steps                  all sizes, those that matter most first
//     steps HIDDEN BATCH     one layer of this hidden size, with so many rows
//     steps --list           the sizes
//
// Built by gpu_check.py: it includes what the library keeps to itself, and links it statically.
// Prints a line of JSON for each way, when it is there. With LSTM_FASTKERNELS_PERSISTENT=0 there is
// no persistent one.
//
// Input size = hidden size, float32. The median of REPEATS rounds in which all ways take turns as
// CUDA graphs, each the difference between a long and a short sequence, so that what is done once
// for a sequence cancels out; input products and quantization are in it. Each way's output is
// compared with that of the first, bit by bit. A way whose blocks wait too long for each other, or
// which CUDA refuses, is said to fail and is not timed.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <cuda_runtime.h>

#include "cuda/host/driver.h"
#include "lstm_fastkernels/cuda.h"
#include "measuring.h"

using namespace lstm_fastkernels;

namespace {

constexpr int REPEATS = 7;
constexpr uint64_t PATIENCE_NS = 200'000'000; // of blocks that wait for each other
// Of so many steps; layers side by side have the same share of their chunks alone in both.
struct Lengths {
  int64_t shorter, longer;
};
constexpr Lengths OF_A_LAYER = {100, 600}, OF_A_STACK = {1024, 2048};

class DeviceMemory {
public:
  explicit DeviceMemory(size_t bytes) : bytes_(bytes) {
    CHECK(cudaMalloc(&data_, std::max<size_t>(bytes, 1)));
  }
  template <class T>
  explicit DeviceMemory(const std::vector<T> &from) : DeviceMemory(from.size() * sizeof(T)) {
    CHECK(cudaMemcpy(data_, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  DeviceMemory(const DeviceMemory &) = delete;
  ~DeviceMemory() { cudaFree(data_); }
  uint8_t *data() const { return static_cast<uint8_t *>(data_); }
  size_t bytes() const { return bytes_; }

private:
  size_t bytes_;
  void *data_ = nullptr;
};

std::mt19937 &random_bits() {
  static std::mt19937 bits(1);
  return bits;
}

// int8 weights of which blocks of 16 x 32 are zero but for a share of `density`.
std::vector<int8_t> random_weights(int64_t rows, int64_t columns, double density) {
  std::vector<int8_t> weights(static_cast<size_t>(rows * columns));
  const int64_t across = (columns + 31) / 32;
  std::vector<bool> kept(static_cast<size_t>((rows + 15) / 16 * across));
  for (size_t i = 0; i < kept.size(); ++i)
    kept[i] = random_bits()() < density * 4294967296.0;
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t k = 0; k < columns; ++k)
      if (kept[static_cast<size_t>(i / 16 * across + k / 32)])
        weights[static_cast<size_t>(i * columns + k)] =
            static_cast<int8_t>(static_cast<int>(random_bits()() % 129) - 64);
  return weights;
}

// What is measured together: batches over one stack.
struct Sizes {
  int64_t hidden, layers;
  double density; // of weight_hh
  std::vector<int64_t> batches;
};

const std::vector<Sizes> ALL_SIZES = {
    {768, 1, 1, {16}},
    {512, 1, 1, {1}},
    {768, 1, 1, {8, 1, 32}},
    {512, 1, 1, {16, 8, 32}},
    {1024, 1, 1, {32, 16, 1, 8}},
    {2048, 1, 0.1, {32, 1}},
    {256, 1, 1, {1, 16, 8, 32}},
    {2048, 1, 1, {16, 1, 8, 32}},
    {768, 2, 1, {16, 1}},
    {512, 2, 1, {1, 16}},
    {1024, 2, 1, {16, 1}},
    {256, 2, 1, {1, 16}},
    {768, 1, 1, {64, 128}},
    {512, 1, 1, {64, 128}},
    {1024, 1, 1, {64, 128}},
    {256, 1, 1, {64, 128}},
    {2048, 1, 1, {64, 128}},
};

// The library asks so, too, but where a shape is forced it does not.
bool persistent_allowed() {
  const char *const value = std::getenv("LSTM_FASTKERNELS_PERSISTENT");
  return !value || std::string(value) != "0";
}

// What kernels set to 1 when their blocks wait too long.
class FailureWord {
public:
  FailureWord() {
    CHECK(cudaMalloc(&word_, sizeof(uint32_t)));
    clear();
  }
  FailureWord(const FailureWord &) = delete;
  ~FailureWord() { cudaFree(word_); }

  uint32_t *get() const { return word_; }
  // Whether it was set; it no longer is.
  bool take() {
    uint32_t value = 0;
    CHECK(cudaMemcpy(&value, word_, sizeof value, cudaMemcpyDeviceToHost));
    clear();
    return value;
  }

private:
  void clear() { CHECK(cudaMemset(word_, 0, sizeof(uint32_t))); }
  uint32_t *word_ = nullptr;
};

class Stack {
public:
  Stack(int64_t hidden, double density, int64_t layers = 1) {
    shape_.input_size = shape_.hidden_size = hidden;
    shape_.num_layers = layers;
    const auto ih = random_weights(4 * hidden, hidden, 1),
               hh = random_weights(4 * hidden, hidden, density);
    const std::vector<float> scales(static_cast<size_t>(4 * hidden), 1.0f / 64 / std::sqrt(hidden));
    CellWeights weights;
    weights.ih.weights = ih.data();
    weights.hh.weights = hh.data();
    weights.ih.scales = weights.hh.scales = scales.data();
    const std::vector<CellWeights> all(static_cast<size_t>(layers), weights);
    const cuda::PackPlan plan(shape_, all.data());
    packed_.resize(plan.bytes());
    plan.write(packed_.data(), packed_.size());
    CHECK(cudaMalloc(&device_, packed_.size()));
    CHECK(cudaMemcpy(device_, packed_.data(), packed_.size(), cudaMemcpyHostToDevice));
  }
  Stack(const Stack &) = delete;
  ~Stack() { cudaFree(device_); }

  const LstmShape &shape() const { return shape_; }
  cuda::DeviceStack view() const {
    return {packed_.data(), cuda::header_bytes(shape_), device_, packed_.size()};
  }

private:
  LstmShape shape_;
  std::vector<uint8_t> packed_;
  void *device_ = nullptr;
};

// A call as a CUDA graph.
class Graph {
public:
  // All layers as the choice says.
  Graph(const cuda::PackedStack &stack, const cuda::Choice &choice, const LstmArguments &a,
        const DeviceMemory &workspace, uint32_t *failed) {
    cuda::Plan plan;
    plan.layers.assign(stack.layers.size(), choice);
    plan.failed = failed;
    plan.patience_ns = PATIENCE_NS;
    cuda::Queue queue;
    queue.stream = stream();
    queue.workspace = workspace.data();
    queue.workspace_bytes = workspace.bytes();
    const Schedule schedule(a);
    cuda::run(stack, a, schedule, plan, queue); // loads the kernels
    cudaGraph_t graph;
    CHECK(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeGlobal));
    cuda::run(stack, a, schedule, plan, queue);
    CHECK(cudaStreamEndCapture(stream(), &graph));
    CHECK(cudaGraphInstantiate(&run_, graph, 0));
    CHECK(cudaGraphDestroy(graph));
  }
  Graph(const Graph &) = delete;
  ~Graph() { cudaGraphExecDestroy(run_); }

  // Microseconds.
  double run() const {
    return elapsed(stream(), [&] { CHECK(cudaGraphLaunch(run_, stream())); }) / 1000.0;
  }

private:
  static cudaStream_t stream() {
    static cudaStream_t stream = nullptr;
    if (!stream)
      CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return stream;
  }

  cudaGraphExec_t run_ = nullptr;
};

// A way to run the steps.
struct Way {
  std::string name;
  cuda::Choice choice;
  std::unique_ptr<Graph> longer, shorter;
  std::vector<double> times;
  std::vector<uint8_t> output;
  std::string fault; // why it does not run
};

// The library's choice is the second, where there is more than one.
std::vector<Way> ways_of(const cuda::PackedStack &stack, int64_t batch, const Lengths &lengths,
                         const device::Limits &limits) {
  std::vector<Way> ways(1);
  ways[0].name = "launches each step";
  if (!persistent_allowed())
    return ways;
  const auto add = [&](const std::string &name, const cuda::Choice &choice) {
    ways.emplace_back();
    ways.back().name = name;
    ways.back().choice = choice;
  };
  for (const auto &shape : cuda::possible_shapes(stack.shape, stack.layers.data(), batch, limits)) {
    if (!cuda::fits(shape, stack.layers[0], 1, 0))
      continue;
    cuda::Choice choice;
    choice.persistent = true;
    choice.shape = shape;
    const int most = std::min(cuda::most_side_by_side(stack, batch, lengths.shorter),
                              cuda::at_once(shape, stack.layers[0], 0));
    if (most > 1) {
      choice.side_by_side = most;
      add(cuda::describe(shape) + ", " + std::to_string(most) + " layers side by side", choice);
    }
    choice.side_by_side = 1;
    add(cuda::describe(shape), choice);
  }
  return ways;
}

class Measurement {
public:
  Measurement(const Stack &source, double density, int64_t batch)
      : view_(source.view()), stack_(view_.packed()), density_(density),
        lengths_(lengths_of(source)),
        x_(input(lengths_.longer * batch * source.shape().hidden_size)), y_(x_.bytes()),
        h_(state_bytes(source, batch)), c_(state_bytes(source, batch)) {
    const int64_t hidden = source.shape().hidden_size;
    arguments_.batch_size = batch;
    arguments_.x = x_.data();
    arguments_.y = y_.data();
    arguments_.h_n = h_.data();
    arguments_.c_n = c_.data();
    arguments_.x_row_stride = arguments_.y_row_stride = hidden;
    arguments_.x_time_stride = arguments_.y_time_stride = batch * hidden;
    arguments_.time_steps = lengths_.longer;
    workspace_.emplace(cuda::workspace_bytes(view_, arguments_));
  }

  // Whether all ways ran and gave the same bits.
  bool run(const device::Limits &limits) {
    std::vector<Way> ways = ways_of(stack_, arguments_.batch_size, lengths_, limits);
    for (Way &way : ways)
      prepare(way);
    for (int repeat = 0; repeat < REPEATS; ++repeat)
      for (Way &way : ways)
        if (way.fault.empty()) {
          way.times.push_back((way.longer->run() - way.shorter->run()) /
                              static_cast<double>(lengths_.longer - lengths_.shorter));
          ask_for_failure(way);
        }
    bool right = true;
    for (const Way &way : ways) {
      print(way, ways);
      right = right && way.fault.empty() && way.output == ways[0].output;
    }
    return right;
  }

private:
  static const Lengths &lengths_of(const Stack &source) {
    return source.shape().num_layers == 1 ? OF_A_LAYER : OF_A_STACK;
  }
  static size_t state_bytes(const Stack &source, int64_t batch) {
    return static_cast<size_t>(source.shape().num_layers * batch * source.shape().hidden_size) * 4;
  }
  static std::vector<float> input(int64_t count) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float &value : values)
      value = static_cast<float>(random_bits()()) / 2147483648.0f - 1.0f;
    return values;
  }

  // Captures the way's graphs and runs the longer one for its output, which also warms up.
  void prepare(Way &way) {
    try {
      for (auto [graph, steps] :
           {std::pair(&way.longer, lengths_.longer), {&way.shorter, lengths_.shorter}}) {
        arguments_.time_steps = steps;
        *graph =
            std::make_unique<Graph>(stack_, way.choice, arguments_, *workspace_, failed_.get());
      }
    } catch (const Error &error) {
      way.fault = error.what();
      return;
    }
    CHECK(cudaMemset(y_.data(), 0xff, y_.bytes()));
    CHECK(cudaDeviceSynchronize());
    way.longer->run();
    way.output.resize(y_.bytes());
    CHECK(cudaMemcpy(way.output.data(), y_.data(), way.output.size(), cudaMemcpyDeviceToHost));
    ask_for_failure(way);
  }

  void ask_for_failure(Way &way) {
    if (failed_.take())
      way.fault = "blocks waited too long for each other";
  }

  void print(const Way &way, const std::vector<Way> &ways) const {
    const LstmShape &shape = stack_.shape;
    std::printf("{\"hidden_size\": %lld, \"num_layers\": %lld, \"batch\": %lld, "
                "\"density\": %g, \"way\": \"%s\", \"chosen\": %s, ",
                static_cast<long long>(shape.hidden_size), static_cast<long long>(shape.num_layers),
                static_cast<long long>(arguments_.batch_size), density_, way.name.c_str(),
                &way == &ways[ways.size() > 1] ? "true" : "false");
    if (way.fault.empty())
      std::printf("\"same_output\": %s, \"us_a_step\": %.4g}\n",
                  way.output == ways[0].output ? "true" : "false", median(way.times));
    else
      std::printf("\"fault\": \"%s\"}\n", way.fault.c_str());
    std::fflush(stdout);
  }

  const cuda::DeviceStack view_;
  const cuda::PackedStack &stack_;
  double density_;
  const Lengths &lengths_;
  const DeviceMemory x_, y_, h_, c_;
  std::optional<DeviceMemory> workspace_;
  LstmArguments arguments_;
  FailureWord failed_;
};

} // namespace

int main(int count, char **arguments) {
  std::vector<Sizes> all = ALL_SIZES;
  if (count == 3)
    all = {{std::atoll(arguments[1]), 1, 1, {std::atoll(arguments[2])}}};
  if (count == 2) { // --list
    for (const Sizes &sizes : all)
      for (int64_t batch : sizes.batches)
        std::printf("H %lld, %lld layers, B %lld, density %g\n",
                    static_cast<long long>(sizes.hidden), static_cast<long long>(sizes.layers),
                    static_cast<long long>(batch), sizes.density);
    return 0;
  }
  cudaDeviceProp device;
  if (cudaGetDeviceProperties(&device, 0) != cudaSuccess) {
    std::fprintf(stderr, "steps: there is no CUDA device\n");
    return 2;
  }
  int shared = 0;
  CHECK(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
  const device::Limits limits{device.multiProcessorCount, static_cast<size_t>(shared),
                              device.major >= 9};
  bool right = true;
  for (const Sizes &sizes : all) {
    const Stack stack(sizes.hidden, sizes.density, sizes.layers);
    for (int64_t batch : sizes.batches)
      try {
        right = Measurement(stack, sizes.density, batch).run(limits) && right;
      } catch (const Error &error) {
        std::printf("{\"hidden_size\": %lld, \"batch\": %lld, \"fault\": \"%s\"}\n",
                    static_cast<long long>(sizes.hidden), static_cast<long long>(batch),
                    error.what());
        right = false;
      }
  }
  return right ? 0 : 1;
}
