// Which instruction set runs, and that LSTM_FASTKERNELS_ISA lowers it.
#include <cstdlib>
#include <string>

#include "check.h"
#include "kernels/kernels.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

TEST(instruction_sets_ascend_from_scalar) {
  const std::vector<Isa> isas = supported_isas();
  CHECK(!isas.empty() && isas.front() == Isa::scalar);
  for (size_t i = 1; i < isas.size(); ++i)
    CHECK(isas[i - 1] < isas[i]);
}

TEST(environment_lowers_the_instruction_set) {
  const char *cap = std::getenv("LSTM_FASTKERNELS_ISA");
  for (Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512vnni}) {
    if (!cap || isa_name(isa) != cap)
      continue;
    CHECK(supported_isas().back() <= isa);
    CHECK(active_isa() <= isa);
    if (isa < Isa::avx512vnni)
      CHECK_THROWS(set_isa("avx512vnni"), "must be one of: scalar");
  }
}

TEST(set_isa_chooses) {
  for_each_isa([](Isa isa) { CHECK(active_isa() == isa); });
  for (const char *name : {"", "sse2", "AVX2", "avx2 "})
    CHECK_THROWS(set_isa(name), std::string("got '") + name + "'");
  CHECK(active_isa() == supported_isas().back());
}

TEST(every_instruction_set_has_kernels_of_its_own) {
  const Kernels *before = nullptr;
  for (Isa isa : supported_isas()) {
    const Kernels *now = &kernels(isa);
    CHECK(now != before && now->quantize_row && now->products && now->step);
    before = now;
  }
}

} // namespace
} // namespace lstm_fastkernels
