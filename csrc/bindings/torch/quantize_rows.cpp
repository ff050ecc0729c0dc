#include <algorithm>

#include "bindings/torch/ops.h"
#include "lstm_fastkernels/weights.h"
#include "runtime/thread_pool.h"

namespace lstm_fastkernels {
namespace {

// A thread takes so many weights at a time.
constexpr int64_t kWeightsAtOnce = 1 << 16;

} // namespace

std::tuple<Tensor, Tensor> quantize_matrix(Tensor weight, bool pair_safe) {
  check_on_cpu("weight", weight);
  check_type("weight", weight, ScalarType::Float);
  require(weight.dim() == 2, "weight must be a matrix, got ", weight.dim(), " dimensions");
  make_contiguous(weight);
  const int64_t rows = weight.size(0), columns = weight.size(1);
  Tensor quantized = allocate({rows, columns}, ScalarType::Char, Device::cpu());
  Tensor scales = allocate({rows}, ScalarType::Float, Device::cpu());
  const auto *const from = static_cast<const float *>(weight.const_data_ptr());
  auto *const to = static_cast<int8_t *>(quantized.mutable_data_ptr());
  auto *const scales_to = static_cast<float *>(scales.mutable_data_ptr());
  const int64_t rows_at_once = 1 + kWeightsAtOnce / std::max<int64_t>(columns, 1);
  const int64_t tasks = (rows + rows_at_once - 1) / rows_at_once;
  with_value_errors([&] {
    parallel_for(static_cast<int>(tasks), thread_count(), [&](int task) {
      const int64_t row = task * rows_at_once;
      quantize_rows(from + row * columns, std::min(rows_at_once, rows - row), columns, pair_safe,
                    to + row * columns, scales_to + row);
    });
  });
  return {quantized, scales};
}

} // namespace lstm_fastkernels
