// What explain says of the layers of a call, on the device that the emulator is.
#include <algorithm>
#include <cstdlib>
#include <string>

#include "check.h"
#include "on_device.h"
#include "stack.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

using Lines = std::vector<std::string>;

Lines explained(const SourceStack &stack, int64_t T, int64_t B) {
  LstmArguments a;
  a.time_steps = T;
  a.batch_size = B;
  return cuda::describe(cuda::explain(StackOnDevice(stack).view(), a, 0));
}

// How the steps of one layer are run, without the shares of blocks.
std::string steps(const TypedShape &shape, int64_t T, int64_t B) {
  const std::string line = explained(random_stack(shape, Weights::any, 1), T, B)[0];
  return line.substr(0, line.find(';'));
}

TEST(steps_of_each_shape) {
  CHECK(steps(shape_of(8, 100), 2, 1) == "persistent: in a cluster of 8 blocks");
  CHECK(steps(shape_of(8, 512), 2, 1) == "persistent: in a cluster of 16 blocks");
  CHECK(steps(shape_of(8, 512), 2, 9) == "persistent: on 32 blocks of the grid");
  CHECK(steps(shape_of(8, 100, 0, 1, 1, kInt16), 2, 1) == "persistent: in a cluster of 8 blocks");
  CHECK(steps(shape_of(8, 100, 0, 1, 1, kFloat32), 2, 1) ==
        "launches each step: weight_hh is float32");
  CHECK(steps(shape_of(8, 100, 50), 2, 1) == "launches each step: there is a projection");
  CHECK(steps(shape_of(8, 100), 1, 1) == "one launch: there is one time step");
  CHECK(steps(shape_of(65000, 100), 1, 1) == "launches each step: there is one time step");
  CHECK(steps(shape_of(8, 100), 2, 64) == "persistent: in a cluster of 8 blocks");
  CHECK(steps(shape_of(8, 512), 2, 65) ==
        "persistent: on 32 blocks of the grid, 2 ranges of 40 rows");
  CHECK(steps(shape_of(8, 100), 2, 257) == "launches each step: the batch is larger than 256");
  CHECK(steps(shape_of(8, 800), 2, 64) == "persistent: on 50 blocks of the grid");
  CHECK(steps(shape_of(8, 1057, 0, 1, 2), 2, 1) ==
        "launches each step: the hidden size or the batch is too large for this device");
}

TEST(layers_side_by_side_are_explained) {
  const std::string grid = "persistent: on 32 blocks of the grid";
  CHECK(steps(shape_of(8, 512, 0, 2), 65, 9) == grid + ", 2 layers side by side");
  CHECK(steps(shape_of(8, 512, 0, 2), 64, 9) == grid); // one chunk of steps
  CHECK(steps(shape_of(8, 512, 0, 5), 1000, 9) == grid + ", 4 layers side by side");
  CHECK(steps(shape_of(8, 512, 0, 2, 2), 1000, 9) == grid);
  CHECK(steps(shape_of(8, 512, 0, 2), 1000, 128) ==
        grid + ", 2 ranges of 64 rows, 2 layers side by side");
  CHECK(steps(shape_of(8, 1040, 0, 3), 1000, 9) ==
        "persistent: on 65 blocks of the grid, 2 layers side by side");
  CHECK(steps(shape_of(8, 1072, 0, 3), 1000, 9) == "persistent: on 67 blocks of the grid");
  CHECK(steps(shape_of(8, 100, 0, 2), 1000, 1) ==
        "persistent: in a cluster of 8 blocks, 2 layers side by side");
  const Lines lines = explained(random_stack(shape_of(8, 512, 0, 5), Weights::any, 1), 1000, 9);
  CHECK(lines[3].substr(0, lines[3].find(';')) == grid + ", 4 layers side by side");
  CHECK(lines[4].substr(0, lines[4].find(';')) == grid);
}

TEST(the_environment_rules_persistent_kernels_out) {
  setenv("LSTM_FASTKERNELS_PERSISTENT", "0", 1);
  const std::string without = steps(shape_of(8, 100), 2, 1);
  setenv("LSTM_FASTKERNELS_PERSISTENT", "1", 1);
  const std::string with = steps(shape_of(8, 100), 2, 1);
  unsetenv("LSTM_FASTKERNELS_PERSISTENT");
  CHECK(without == "launches each step: LSTM_FASTKERNELS_PERSISTENT is 0");
  CHECK(with == "persistent: in a cluster of 8 blocks");
}

TEST(blocks_of_zeros_are_not_kept) {
  SourceStack stack = random_stack(shape_of(8, 512), Weights::any, 2);
  SourceMatrix &hh = stack.layers[0].hh;
  for (size_t i = 0; i < hh.weights.size(); ++i)
    if (static_cast<int64_t>(i) % hh.columns >= 288)
      hh.weights[i] = 0.0f;
  CHECK(explained(stack, 2, 16)[0] ==
        "persistent: on 32 blocks of the grid; blocks kept: weight_ih_l0 100.0% (int8, 16x32), "
        "weight_hh_l0 56.3% (int8, 16x32)");
}

TEST(blocks_of_padding_do_not_count) {
  SourceStack stack = random_stack(shape_of(33, 19, 5, 2, 2), Weights::any, 3);
  const SourceStack floats = random_stack(shape_of(33, 19, 5, 2, 2, kFloat32), Weights::any, 3);
  stack.layers[2].ih = floats.layers[2].ih;
  CHECK(explained(stack, 3, 2)[1] ==
        "launches each step: there is a projection; blocks kept: "
        "weight_ih_l1 100.0% (float32, 16x4), weight_hh_l1 100.0% (int8, 16x32), "
        "weight_hr_l1 100.0% (int8, 16x32), weight_ih_l1_reverse 100.0% (int8, 16x32), "
        "weight_hh_l1_reverse 100.0% (int8, 16x32), weight_hr_l1_reverse 100.0% (int8, 16x32)");
}

TEST(an_empty_batch_has_nothing_to_run) {
  const SourceStack stack = random_stack(shape_of(8, 9, 0, 2), Weights::any, 4);
  CHECK(explained(stack, 2, 0) == Lines(2, "nothing to run"));
  CHECK_THROWS(explained(stack, 0, 1), "time_steps must be at least 1");
}

} // namespace
} // namespace lstm_fastkernels
