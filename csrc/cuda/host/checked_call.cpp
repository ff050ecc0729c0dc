#include "cuda/host/checked_call.h"

#include <string>

#include "common/fail.h"

namespace lstm_fastkernels {
namespace cuda {
namespace {

// Kernels hold counts of rows, and the grids made of them, in 32 bits. Four rows of y are cleared
// by a block.
constexpr int64_t kMostRows = int64_t{1} << 30, kMostRowsOfAllSteps = int64_t{1} << 32;

} // namespace

Schedule checked_schedule(const LstmArguments &a) {
  if (a.id_type != IdType::none)
    fail("LSTMs that read token ids run on the CPU alone");
  if (a.batch_size > kMostRows)
    fail("batch_size must be at most " + std::to_string(kMostRows) + " on a CUDA device, got " +
         std::to_string(a.batch_size));
  if (a.batch_size > 0 && a.time_steps > kMostRowsOfAllSteps / a.batch_size)
    fail("time_steps * batch_size must be at most " + std::to_string(kMostRowsOfAllSteps) +
         " on a CUDA device, got " + std::to_string(a.time_steps) + " * " +
         std::to_string(a.batch_size));
  if (a.state_rows)
    fail("state_rows are for the CPU: on a CUDA device, gather the states of the rows");
  return Schedule(a);
}

} // namespace cuda
} // namespace lstm_fastkernels
