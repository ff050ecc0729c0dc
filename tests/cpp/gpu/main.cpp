// The main program of device_tests, which `make gpu-check` builds and runs.
//
//     device_tests            runs every test
//     device_tests PART       those whose names contain PART
//     device_tests --list     names them
//
// A test is named when it starts, and a line of JSON says what came of it. An error that a kernel
// causes stays with its process: after a failed test the others run in a fresh one.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <string>

#include "check.h"
#include "lstm_fastkernels/isa.h"

namespace {

struct Tally {
  int passed = 0, failed = 0;
};

// Starts this program again, from the test of this index on.
void restart(const char *program, const std::string &part, size_t test, const Tally &tally) {
  const std::string index = std::to_string(test), passed = std::to_string(tally.passed),
                    failed = std::to_string(tally.failed);
  execl("/proc/self/exe", program, part.c_str(), index.c_str(), passed.c_str(), failed.c_str(),
        nullptr);
  std::perror("device_tests: cannot start again");
}

} // namespace

int main(int count, char **arguments) {
  const std::string part = count > 1 ? arguments[1] : "";
  size_t first = 0;
  Tally tally;
  if (count == 5) { // started again
    first = std::stoul(arguments[2]);
    tally = {std::stoi(arguments[3]), std::stoi(arguments[4])};
  }
  const auto &tests = check::tests();
  if (part == "--list") {
    for (const check::Test &test : tests)
      std::printf("%s\n", test.name);
    return 0;
  }
  for (size_t i = first; i < tests.size(); ++i) {
    const check::Test &test = tests[i];
    if (std::string(test.name).find(part) == std::string::npos)
      continue;
    std::printf("%s ...\n", test.name);
    std::fflush(stdout);
    const auto start = std::chrono::steady_clock::now();
    const std::string wrong = check::run(test);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    ++(wrong.empty() ? tally.passed : tally.failed);
    if (!wrong.empty())
      std::printf("FAILED %s\n  %s\n", test.name, wrong.c_str());
    std::printf("{\"test\": \"%s\", \"passed\": %s, \"seconds\": %.2f}\n", test.name,
                wrong.empty() ? "true" : "false", seconds.count());
    std::fflush(stdout);
    if (!wrong.empty())
      restart(arguments[0], part, i + 1, tally);
  }
  const std::string isa(lstm_fastkernels::active_isa());
  std::printf("device and %s: %d passed, %d failed\n", isa.c_str(), tally.passed, tally.failed);
  return tally.failed == 0 && tally.passed > 0 ? 0 : 1;
}
