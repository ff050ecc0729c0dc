// Which instruction set runs, and that LSTM_FASTKERNELS_ISA lowers it.
#include <algorithm>
#include <cstdlib>
#include <string>

#include "check.h"
#include "kernels/implementations.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

const std::vector<std::string_view> kBuilt = {
    "scalar",
#if defined(__x86_64__)
    "avx2",
    "avx512vnni",
    "amx",
#elif defined(__aarch64__)
    "neon",
    "neon_dotprod",
#endif
};

TEST(instruction_sets_ascend_from_scalar) {
  const std::vector<std::string_view> isas = supported_isas();
  CHECK(!isas.empty() && isas.size() <= kBuilt.size());
  CHECK(std::equal(isas.begin(), isas.end(), kBuilt.begin()));
}

TEST(environment_lowers_the_instruction_set) {
  const char *const cap = std::getenv("LSTM_FASTKERNELS_ISA");
  const auto best = std::find(kBuilt.begin(), kBuilt.end(), cap ? cap : kBuilt.back());
  CHECK(best != kBuilt.end());
  for (auto above = best + 1; best != kBuilt.end() && above < kBuilt.end(); ++above)
    CHECK_THROWS(set_isa(*above), "must be one of: scalar");
}

TEST(set_isa_chooses) {
  for_each_isa([](std::string_view isa) { CHECK(active_isa() == isa); });
  for (const char *name : {"", "sse2", "AVX2", "avx2 "})
    CHECK_THROWS(set_isa(name), std::string("got '") + name + "'");
  CHECK(active_isa() == supported_isas().back());
}

TEST(every_instruction_set_has_kernels_of_its_own) {
  const Kernels *before = nullptr;
  for (std::string_view isa : supported_isas()) {
    const Kernels *now = &kernels(isa);
    CHECK(now != before && now->quantize_row && now->products && now->step);
    before = now;
  }
}

} // namespace
} // namespace lstm_fastkernels
