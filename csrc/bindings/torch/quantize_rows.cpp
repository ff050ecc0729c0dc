#include "weights/quantize_rows.h"

#include "bindings/torch/ops.h"
#include "runtime/thread_pool.h"
#include "weights/packed_int4.h"

namespace lstm_fastkernels {

namespace {

void check_weight(Tensor &weight) {
  check_on_cpu("weight", weight);
  check_type("weight", weight, ScalarType::Float);
  require(weight.dim() == 2, "weight must be a matrix, got ", weight.dim(), " dimensions");
  make_contiguous(weight);
}

void run_tasks(int count, const std::function<void(int)> &task) {
  parallel_for(count, thread_count(), task);
}

} // namespace

std::tuple<Tensor, Tensor> quantize_matrix(Tensor weight, std::optional<bool> pair_safe) {
  check_weight(weight);
  const int64_t rows = weight.size(0), columns = weight.size(1);
  Tensor quantized = allocate({rows, columns}, ScalarType::Char, Device::cpu());
  Tensor scales = allocate({rows}, ScalarType::Float, Device::cpu());
  const PairSafe rule = !pair_safe   ? PairSafe::automatic
                        : *pair_safe ? PairSafe::always
                                     : PairSafe::never;
  with_value_errors([&] {
    quantize_rows(static_cast<const float *>(weight.const_data_ptr()), rows, columns, rule,
                  static_cast<int8_t *>(quantized.mutable_data_ptr()),
                  static_cast<float *>(scales.mutable_data_ptr()), run_tasks);
  });
  return {quantized, scales};
}

std::tuple<Tensor, Tensor> quantize_matrix_groups(Tensor weight, int64_t group_size) {
  check_weight(weight);
  const int64_t rows = weight.size(0), columns = weight.size(1);
  with_value_errors([&] { check_group_size(group_size); });
  Tensor quantized = allocate({rows, divide_up(columns, 2)}, ScalarType::Byte, Device::cpu());
  Tensor scales =
      allocate({rows, divide_up(columns, group_size)}, ScalarType::Float, Device::cpu());
  with_value_errors([&] {
    quantize_groups(static_cast<const float *>(weight.const_data_ptr()), rows, columns, group_size,
                    static_cast<uint8_t *>(quantized.mutable_data_ptr()),
                    static_cast<float *>(scales.mutable_data_ptr()), run_tasks);
  });
  return {quantized, scales};
}

} // namespace lstm_fastkernels
