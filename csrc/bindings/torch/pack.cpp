#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "bindings/torch/ops.h"
#include "lstm_fastkernels/weights.h"

namespace lstm_fastkernels {
namespace {

// As safetensors calls it.
std::string dtype_name(const std::string &name, const Tensor &t) {
  switch (t.scalar_type()) {
  case ScalarType::Char:
    return "I8";
  case ScalarType::Byte:
    return "U8";
  case ScalarType::Int:
    return "I32";
  case ScalarType::Float:
    return "F32";
  case ScalarType::Half:
    return "F16";
  default:
    require(false, name, " must be of dtype int8, uint8, int32, float32 or float16, got ",
            text(t.scalar_type()));
    return "";
  }
}

TensorView view(const std::string &name, const Tensor &t) {
  TensorView tensor;
  tensor.name = name;
  tensor.dtype = dtype_name(name, t);
  tensor.shape.assign(t.sizes().begin(), t.sizes().end());
  tensor.data = t.const_data_ptr();
  const int64_t size = tensor.dtype == "I8" || tensor.dtype == "U8" ? 1
                       : tensor.dtype == "F16"                      ? 2
                                                                    : 4;
  tensor.bytes = static_cast<size_t>(t.numel() * size);
  return tensor;
}

} // namespace

std::tuple<Tensor, std::optional<Header>> pack_lstm(const std::vector<Tensor> &tensors,
                                                    const std::vector<std::string> &names,
                                                    const std::vector<int64_t> &shape,
                                                    const std::vector<std::string> &precisions,
                                                    bool cuda) {
  require(tensors.size() == names.size(), "expected a name for each of ", tensors.size(),
          " tensors, got ", names.size());
  std::vector<Tensor> contiguous = tensors; // keeps copies alive
  std::map<std::string, TensorView> views;
  for (size_t i = 0; i < tensors.size(); ++i) {
    check_on_cpu(names[i].c_str(), tensors[i]);
    make_contiguous(contiguous[i]);
    require(views.emplace(names[i], view(names[i], contiguous[i])).second, names[i],
            " is given twice");
  }
  std::vector<Precision> each;
  std::transform(precisions.begin(), precisions.end(), std::back_inserter(each), precision_from);
  const LstmShape sizes = shape_from(shape);
  const bool bias = views.count("bias_l0") != 0;
  const CanonicalTensors canonical(sizes, bias, each, std::move(views));
  if (cuda)
    return pack_for_cuda(sizes, canonical.cells());
  const PackPlan plan(sizes, canonical.cells());
  Tensor packed = allocate({static_cast<int64_t>(plan.bytes())}, ScalarType::Byte, Device::cpu());
  plan.write(packed.mutable_data_ptr(), plan.bytes());
  return {packed, std::nullopt};
}

} // namespace lstm_fastkernels
