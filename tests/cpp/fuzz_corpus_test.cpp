// The fuzzer's corpus: every file as the fuzzer runs it, the good ones load and the bad ones do
// not.
#include <filesystem>
#include <fstream>
#include <iterator>

#include "check.h"
#include "lstm_fastkernels/file.h"
#include "stored.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

namespace lstm_fastkernels {
namespace {

struct CorpusFile {
  std::string name;
  Bytes bytes;

  bool is_good() const { return name.rfind("good-", 0) == 0; }
  bool is_bad() const { return name.rfind("bad-", 0) == 0; }
  bool is_state() const { return std::filesystem::path(name).extension() == ".state"; }
};

std::vector<CorpusFile> corpus() {
  std::vector<CorpusFile> files;
  for (const auto &file : std::filesystem::directory_iterator(test_path("cpp/fuzz_corpus"))) {
    std::ifstream in(file.path(), std::ios::binary);
    files.push_back({file.path().filename(), Bytes(std::istreambuf_iterator<char>(in), {})});
  }
  CHECK(files.size() > 30);
  return files;
}

// How many LSTMs it loads.
size_t load_all(const CorpusFile &of) {
  if (of.is_state())
    return State::restore(of.bytes.data(), of.bytes.size()).layers() > 0;
  const File file = File::from_memory(of.bytes.data(), of.bytes.size(), of.name);
  for (const std::string &name : file.lstm_names())
    Lstm::load(file, name);
  return file.lstm_names().size();
}

TEST(the_fuzzers_corpus_runs) {
  for (const CorpusFile &file : corpus()) {
    WITH("file ", file.name);
    CHECK(LLVMFuzzerTestOneInput(file.bytes.data(), file.bytes.size()) == 0);
  }
}

TEST(the_fuzzers_corpus_is_what_its_names_say) {
  for (const CorpusFile &file : corpus()) {
    WITH("file ", file.name);
    if (file.is_good())
      CHECK(load_all(file) > 0);
    if (file.is_bad())
      CHECK_THROWS(load_all(file), file.is_state() ? "saved state" : file.name + ": ");
  }
}

} // namespace
} // namespace lstm_fastkernels
