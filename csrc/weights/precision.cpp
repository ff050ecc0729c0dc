#include "lstm_fastkernels/precision.h"

#include <string>

#include "common/fail.h"
#include "lstm_fastkernels/weights.h"

namespace lstm_fastkernels {
namespace {

struct Named {
  std::string_view name;
  Precision precision;
};

constexpr Named kAll[] = {
    {"int8", {WeightType::int8, ActivationType::int8}},
    {"int16", {WeightType::int8, ActivationType::int16}},
    {"float32", {WeightType::float32, ActivationType::float32}},
    {"int4", {WeightType::int4, ActivationType::int8}},
    {"table", {WeightType::float32, ActivationType::ids}},
    {"table_float16", {WeightType::float16, ActivationType::ids}},
};

} // namespace

Precision precision_from(std::string_view name) {
  std::string names;
  for (const Named &named : kAll) {
    if (named.name == name)
      return named.precision;
    (names += names.empty() ? "" : ", ") += named.name;
  }
  fail("precision must be one of: " + names + "; got '" + std::string(name) + "'");
}

std::string_view precision_name(Precision precision) {
  for (const Named &named : kAll)
    if (named.precision == precision)
      return named.name;
  fail("there is no precision of weight type " +
       std::to_string(static_cast<uint32_t>(precision.weights)) + " and activation type " +
       std::to_string(static_cast<uint32_t>(precision.activations)));
}

bool takes_ids(const LstmShape &shape, const std::vector<Precision> &precisions) {
  const std::vector<MatrixName> names = matrix_names(shape);
  if (precisions.size() != names.size())
    fail("expected a precision for each of " + std::to_string(names.size()) + " matrices, got " +
         std::to_string(precisions.size()));
  const bool ids = is_table(precisions.front());
  for (size_t i = 0; i < names.size(); ++i) {
    const bool reads_x = names[i].kind == MatrixKind::ih && names[i].cell < shape.num_directions;
    if (is_table(precisions[i]) && !reads_x)
      fail(names[i].name + ": only weight_ih of the first layer can be a table");
    if (is_table(precisions[i]) != ids && reads_x)
      fail(names[i].name +
           ": the first layer's weight_ih of both directions are tables or neither");
  }
  return ids;
}

} // namespace lstm_fastkernels
