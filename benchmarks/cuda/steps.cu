// Microseconds a time step of every way to run the steps of a layer, or of a stack: a launch each,
// each shape of the persistent kernel, and layers side by side. It is what persistent.cu's order of
// preference is to be read from.
//
// Built by gpu_check.py: it includes what the library keeps to itself, and links it statically. Its
// argument is the JSON file to write.
//
// Input size = hidden size, float32. The median of REPEATS rounds in which all ways take turns as
// CUDA graphs, each the difference between a long and a short sequence, so that what is done once
// for a sequence cancels out; input products and quantization are in it. Each way's output is
// compared with that of the first, bit by bit.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
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

struct Figure {
  int64_t hidden, layers, batch;
  double density;
  std::string way;
  bool chosen, same;
  double microseconds;
};

class Stack {
public:
  Stack(int64_t hidden, double density, int64_t layers = 1) {
    shape_.input_size = shape_.hidden_size = hidden;
    shape_.num_layers = layers;
    const auto ih = random_weights(4 * hidden, hidden, 1),
               hh = random_weights(4 * hidden, hidden, density);
    const std::vector<float> scales(static_cast<size_t>(4 * hidden), 1.0f / 64 / std::sqrt(hidden));
    LayerWeights weights;
    weights.ih.weights = ih.data();
    weights.hh.weights = hh.data();
    weights.ih.scales = weights.hh.scales = scales.data();
    const std::vector<LayerWeights> all(static_cast<size_t>(layers), weights);
    packed_.resize(cuda::packed_bytes(shape_, all.data()));
    cuda::pack(shape_, all.data(), packed_.data(), packed_.size());
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
  std::unique_ptr<Graph> longer, shorter;
  std::vector<double> times;
  std::vector<uint8_t> output;
};

std::vector<Way> ways_of(const cuda::PackedStack &stack, LstmArguments a, const Lengths &lengths,
                         const DeviceMemory &workspace, const device::Limits &limits,
                         uint32_t *failed) {
  std::vector<Way> ways;
  const auto add = [&](const std::string &name, const cuda::Choice &choice) {
    ways.emplace_back();
    ways.back().name = name;
    for (auto [graph, steps] : {std::pair(&ways.back().longer, lengths.longer),
                                {&ways.back().shorter, lengths.shorter}}) {
      a.time_steps = steps;
      *graph = std::make_unique<Graph>(stack, choice, a, workspace, failed);
    }
  };
  add("a launch each step", cuda::Choice());
  for (const auto &shape :
       cuda::possible_shapes(stack.shape, stack.layers.data(), a.batch_size, limits)) {
    if (!cuda::fits(shape, stack.layers[0], 1, 0))
      continue;
    cuda::Choice choice;
    choice.persistent = true;
    choice.shape = shape;
    const int most = std::min(cuda::most_side_by_side(stack.shape, a.batch_size, lengths.shorter),
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

void measure(const Stack &source, double density, int64_t batch, const device::Limits &limits,
             uint32_t *failed, std::vector<Figure> &figures) {
  const cuda::DeviceStack view = source.view();
  const cuda::PackedStack &stack = view.packed();
  const int64_t hidden = source.shape().hidden_size, layers = source.shape().num_layers;
  const Lengths &lengths = layers == 1 ? OF_A_LAYER : OF_A_STACK;
  const int64_t values = lengths.longer * batch * hidden;
  std::vector<float> input(static_cast<size_t>(values));
  for (float &value : input)
    value = static_cast<float>(random_bits()()) / 2147483648.0f - 1.0f;
  const DeviceMemory x(input), y(input.size() * 4),
      h(static_cast<size_t>(layers * batch * hidden) * 4),
      c(static_cast<size_t>(layers * batch * hidden) * 4);
  LstmArguments a;
  a.batch_size = batch;
  a.x = x.data();
  a.y = y.data();
  a.h_n = h.data();
  a.c_n = c.data();
  a.x_row_stride = a.y_row_stride = hidden;
  a.x_time_stride = a.y_time_stride = batch * hidden;
  a.time_steps = lengths.longer;
  const DeviceMemory workspace(cuda::workspace_bytes(view, a));
  std::vector<Way> ways = ways_of(stack, a, lengths, workspace, limits, failed);
  for (Way &way : ways) { // also warms up
    CHECK(cudaMemset(y.data(), 0xff, input.size() * 4));
    CHECK(cudaDeviceSynchronize());
    way.longer->run();
    way.output.resize(input.size() * 4);
    CHECK(cudaMemcpy(way.output.data(), y.data(), way.output.size(), cudaMemcpyDeviceToHost));
  }
  for (int repeat = 0; repeat < REPEATS; ++repeat)
    for (Way &way : ways)
      way.times.push_back((way.longer->run() - way.shorter->run()) /
                          static_cast<double>(lengths.longer - lengths.shorter));
  const std::string chosen = ways.size() > 1 ? ways[1].name : ways[0].name;
  for (const Way &way : ways) {
    figures.push_back({hidden, layers, batch, density, way.name, way.name == chosen,
                       way.output == ways[0].output, median(way.times)});
    const Figure &f = figures.back();
    std::printf("H %4lld  %lld layers  B %2lld  %3.0f%%  %-56s %8.3f us%s%s\n",
                static_cast<long long>(hidden), static_cast<long long>(layers),
                static_cast<long long>(batch), density * 100, f.way.c_str(), f.microseconds,
                f.chosen ? "  chosen" : "", f.same ? "" : "  WRONG OUTPUT");
    std::fflush(stdout);
  }
}

void write_json(const char *path, const cudaDeviceProp &device,
                const std::vector<Figure> &figures) {
  std::FILE *file = std::fopen(path, "w");
  if (!file) {
    std::perror(path);
    std::exit(1);
  }
  std::fprintf(file,
               "{\n  \"device\": \"%s\",\n  \"unit\": \"microseconds a step\",\n  \"steps\": [",
               device.name);
  for (size_t i = 0; i < figures.size(); ++i) {
    const Figure &f = figures[i];
    std::fprintf(
        file,
        "%s\n    {\"hidden_size\": %lld, \"num_layers\": %lld, \"batch\": %lld, \"density\": %g, "
        "\"way\": \"%s\", \"chosen\": %s, \"same_output\": %s, \"value\": %.6g}",
        i ? "," : "", static_cast<long long>(f.hidden), static_cast<long long>(f.layers),
        static_cast<long long>(f.batch), f.density, f.way.c_str(), f.chosen ? "true" : "false",
        f.same ? "true" : "false", f.microseconds);
  }
  std::fprintf(file, "\n  ]\n}\n");
  std::fclose(file);
}

} // namespace

int main(int count, char **arguments) {
  cudaDeviceProp device;
  if (cudaGetDeviceProperties(&device, 0) != cudaSuccess) {
    std::fprintf(stderr, "steps: there is no CUDA device\n");
    return 1;
  }
  int shared = 0;
  CHECK(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
  const device::Limits limits{device.multiProcessorCount, static_cast<size_t>(shared),
                              device.major >= 9};
  const DeviceMemory failed(std::vector<uint32_t>(1, 0));
  uint32_t *const word = reinterpret_cast<uint32_t *>(failed.data());
  std::vector<Figure> figures;
  for (int64_t hidden : {256, 512, 768, 1024, 2048}) {
    const Stack layer(hidden, 1);
    for (int64_t batch : {1, 8, 16, 32, 64, 128})
      measure(layer, 1, batch, limits, word, figures);
  }
  for (int64_t hidden : {256, 512, 768, 1024}) {
    const Stack stack(hidden, 1, 2);
    for (int64_t batch : {1, 16})
      measure(stack, 1, batch, limits, word, figures);
  }
  const Stack sparse(2048, 0.1);
  for (int64_t batch : {1, 32})
    measure(sparse, 0.1, batch, limits, word, figures);

  uint32_t gave_up = 0;
  CHECK(cudaMemcpy(&gave_up, word, sizeof gave_up, cudaMemcpyDeviceToHost));
  const bool same =
      std::all_of(figures.begin(), figures.end(), [](const Figure &f) { return f.same; });
  if (gave_up)
    std::printf("blocks waited too long for each other\n");
  if (count > 1)
    write_json(arguments[1], device, figures);
  return gave_up || !same;
}
