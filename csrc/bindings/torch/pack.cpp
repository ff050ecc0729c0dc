#include <algorithm>
#include <iterator>
#include <map>
#include <string>
#include <utility>

#include "bindings/torch/ops.h"
#include "lstm_fastkernels/weights.h"
#include "weights/packed_origin.h"
#include "weights/unpack.h"

namespace lstm_fastkernels {
namespace {

// What canonical tensors may be.
struct NamedType {
  const char *name; // as safetensors has it
  ScalarType type;
};
constexpr NamedType kTypes[] = {{"I8", ScalarType::Char},
                                {"U8", ScalarType::Byte},
                                {"I32", ScalarType::Int},
                                {"F32", ScalarType::Float},
                                {"F16", ScalarType::Half}};

const char *dtype_name(const std::string &name, const Tensor &t) {
  const auto *const found = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const auto &of) {
    return of.type == t.scalar_type();
  });
  require(found != std::end(kTypes), name,
          " must be of dtype int8, uint8, int32, float32 or float16, got ", text(t.scalar_type()));
  return found->name;
}

ScalarType type_named(const std::string &dtype) {
  return std::find_if(std::begin(kTypes), std::end(kTypes),
                      [&](const auto &of) { return of.name == dtype; })
      ->type;
}

TensorView view(const std::string &name, const Tensor &t) {
  TensorView tensor;
  tensor.name = name;
  tensor.dtype = dtype_name(name, t);
  tensor.shape.assign(t.sizes().begin(), t.sizes().end());
  tensor.data = t.const_data_ptr();
  tensor.bytes = static_cast<size_t>(t.numel()) * t.element_size();
  return tensor;
}

// Tensors by their names; holds them.
struct NamedTensors {
  NamedTensors(const std::vector<Tensor> &tensors, const std::vector<std::string> &names)
      : contiguous(tensors) {
    require(tensors.size() == names.size(), "expected a name for each of ", tensors.size(),
            " tensors, got ", names.size());
    for (size_t i = 0; i < tensors.size(); ++i) {
      check_on_cpu(names[i].c_str(), tensors[i]);
      make_contiguous(contiguous[i]);
      require(views.emplace(names[i], view(names[i], contiguous[i])).second, names[i],
              " is given twice");
    }
  }
  std::vector<Tensor> contiguous;
  std::map<std::string, TensorView> views;
};

std::vector<Precision> precisions_from(const std::vector<std::string> &names) {
  std::vector<Precision> each;
  std::transform(names.begin(), names.end(), std::back_inserter(each), precision_from);
  return each;
}

} // namespace

std::tuple<Tensor, std::optional<Header>> pack_lstm(const std::vector<Tensor> &tensors,
                                                    const std::vector<std::string> &names,
                                                    const std::vector<int64_t> &shape,
                                                    const std::vector<std::string> &precisions,
                                                    bool cuda) {
  const NamedTensors given(tensors, names);
  const std::vector<Precision> each = precisions_from(precisions);
  const LstmShape sizes = shape_from(shape);
  const bool bias = given.views.count("bias_l0") != 0;
  const CanonicalTensors canonical(sizes, bias, each, given.views);
  if (cuda)
    return pack_for_cuda(sizes, canonical.cells());
  const PackPlan plan(sizes, canonical.cells());
  Tensor packed = allocate({static_cast<int64_t>(plan.bytes())}, ScalarType::Byte, Device::cpu());
  plan.write(packed.mutable_data_ptr(), plan.bytes());
  return {packed, std::nullopt};
}

bool packed_fits(const Tensor &packed, const std::string &hash, const std::vector<Tensor> &tensors,
                 const std::vector<std::string> &names, const std::vector<int64_t> &shape,
                 const std::vector<std::string> &precisions) {
  check_on_cpu("packed weights", packed);
  check_bytes("packed weights", packed);
  const NamedTensors given(tensors, names);
  return packed_from(packed.const_data_ptr(), static_cast<size_t>(packed.numel()), hash,
                     shape_from(shape), precisions_from(precisions), given.views)
      .has_value();
}

std::string hash_tensors(const std::vector<Tensor> &tensors,
                         const std::vector<std::string> &names) {
  return hash_of(NamedTensors(tensors, names).views);
}

void check_made_for(const LstmShape &made_for, const LstmShape &shape) {
  require(made_for == shape, "packed weights were made for other sizes: input_size ",
          made_for.input_size, ", hidden_size ", made_for.hidden_size, ", proj_size ",
          made_for.proj_size, ", num_layers ", made_for.num_layers, ", directions ",
          made_for.num_directions);
}

std::tuple<std::vector<Tensor>, std::vector<std::string>>
unpack_lstm(const Tensor &packed, const std::vector<int64_t> &shape) {
  check_on_cpu("packed weights", packed);
  check_bytes("packed weights", packed);
  const void *const data = packed.const_data_ptr();
  const auto bytes = static_cast<size_t>(packed.numel());
  const PackHeader header = header_of(data, bytes);
  const bool cuda = header.backend == static_cast<uint32_t>(Backend::cuda);
  check_made_for(read_header(header, cuda ? Backend::cuda : Backend::cpu), shape_from(shape));
  std::vector<Tensor> tensors;
  std::vector<std::string> names;
  for (const UnpackedTensor &tensor :
       cuda ? unpack_from_cuda(packed) : unpack(PackedStack(data, bytes))) {
    names.push_back(tensor.view.name);
    tensors.push_back(allocate(tensor.view.shape, type_named(tensor.view.dtype), Device::cpu()));
    tensor.write(tensors.back().mutable_data_ptr());
  }
  return {std::move(tensors), std::move(names)};
}

} // namespace lstm_fastkernels
