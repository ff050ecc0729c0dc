// Runs every test, or those whose name contains the first argument.
#include <cstdio>
#include <exception>
#include <string>

#include "check.h"
#include "lstm_fastkernels/isa.h"

namespace {

// What went wrong, or empty.
std::string run(const check::Test &test) {
  try {
    test.run();
  } catch (const check::Failure &failure) {
    return failure.message;
  } catch (const std::exception &error) {
    return std::string("unexpected exception: ") + error.what();
  }
  return "";
}

} // namespace

int main(int count, char **arguments) {
  const std::string part = count > 1 ? arguments[1] : "";
  int passed = 0, failed = 0;
  for (const check::Test &test : check::tests()) {
    if (std::string(test.name).find(part) == std::string::npos)
      continue;
    const std::string wrong = run(test);
    ++(wrong.empty() ? passed : failed);
    if (!wrong.empty())
      std::printf("FAILED %s\n  %s\n", test.name, wrong.c_str());
    std::fflush(stdout);
  }
  std::string isas;
  for (lstm_fastkernels::Isa isa : lstm_fastkernels::supported_isas())
    (isas += isas.empty() ? "" : ", ") += isa_name(isa);
  std::printf("%s: %d passed, %d failed\n", isas.c_str(), passed, failed);
  return failed == 0 && passed > 0 ? 0 : 1;
}
