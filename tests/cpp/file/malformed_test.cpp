// Files that must not load: tests/support/malformed has the table, and makes them for this test.
#include <fstream>

#include "check.h"
#include "lstm_fastkernels/file.h"
#include "stored.h"

namespace lstm_fastkernels {
namespace {

bool is_state(const std::string &name) { return name.find(".state") != name.npos; }

TEST(malformed_files_are_refused) {
  const std::string folder = LSTM_FASTKERNELS_MALFORMED "/";
  std::ifstream index(folder + "index.txt");
  int count = 0;
  for (std::string name, message; std::getline(index, name, '\t') && std::getline(index, message);
       ++count) {
    WITH("file ", name);
    const Bytes bytes = read_bytes(folder + name);
    if (is_state(name))
      CHECK_THROWS(State::restore(bytes.data(), bytes.size()), message);
    else
      check_refused(bytes, message);
  }
  CHECK(count > 700);
}

} // namespace
} // namespace lstm_fastkernels
