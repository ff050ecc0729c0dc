#include "lstm_fastkernels/precision.h"

#include <string>

#include "common/fail.h"

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

} // namespace lstm_fastkernels
