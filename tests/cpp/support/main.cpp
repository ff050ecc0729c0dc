// Runs every test, or those whose name contains the first argument; with a minus ahead of it, the
// others.
#include <chrono>
#include <cstdio>
#include <string>

#include "check.h"
#include "lstm_fastkernels/isa.h"
#include "runtime/processors.h"
#include "support.h"

int main(int count, char **arguments) {
  lstm_fastkernels::assume_processors(lstm_fastkernels::kManyProcessors);
  std::string part = count > 1 ? arguments[1] : "";
  const bool others = part.rfind('-', 0) == 0;
  part.erase(0, others);
  int passed = 0, failed = 0;
  for (const check::Test &test : check::tests()) {
    if ((std::string(test.name).find(part) == std::string::npos) != others)
      continue;
    std::printf("%s ", test.name);
    std::fflush(stdout); // the one that hangs is the last one named
    const auto begun = std::chrono::steady_clock::now();
    const std::string wrong = check::run(test);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begun;
    std::printf("%.2f s\n", seconds.count());
    ++(wrong.empty() ? passed : failed);
    if (!wrong.empty())
      std::printf("FAILED %s\n  %s\n", test.name, wrong.c_str());
    std::fflush(stdout);
  }
  std::string isas;
  for (const std::string_view isa : lstm_fastkernels::supported_isas())
    (isas += isas.empty() ? "" : ", ") += isa;
  std::printf("%s: %d passed, %d failed\n", isas.c_str(), passed, failed);
  return failed == 0 && passed > 0 ? 0 : 1;
}
