// Every file that the fuzzer starts with, as the fuzzer runs it; and the good ones load.
#include <filesystem>

#include "check.h"
#include "lstm_fastkernels/file.h"
#include "stored.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

namespace lstm_fastkernels {
namespace {

// Calls test(path, bytes) with every file of a folder; a missing one has none.
template <class Test> int for_each_file(const std::string &folder, const Test &test) {
  int count = 0;
  if (!std::filesystem::exists(folder))
    return count;
  for (const auto &file : std::filesystem::directory_iterator(folder)) {
    WITH("file ", file.path());
    test(file.path(), read_bytes(file.path()));
    ++count;
  }
  return count;
}

TEST(the_fuzzers_corpus_runs) {
  const auto run = [](const std::filesystem::path &, const Bytes &bytes) {
    CHECK(LLVMFuzzerTestOneInput(bytes.data(), bytes.size()) == 0);
  };
  CHECK(for_each_file(test_path("data/good"), run) > 10);
  CHECK(for_each_file(LSTM_FASTKERNELS_MALFORMED, run) > 700);
  for_each_file(test_path("data/found"), run);
}

TEST(good_files_load) {
  for_each_file(test_path("data/good"), [](const std::filesystem::path &path, const Bytes &bytes) {
    if (path.extension() == ".state") {
      CHECK(State::restore(bytes.data(), bytes.size()).layers() > 0);
      return;
    }
    CHECK(!File::open(path).lstm_names().empty());
    load_all(bytes);
  });
}

} // namespace
} // namespace lstm_fastkernels
