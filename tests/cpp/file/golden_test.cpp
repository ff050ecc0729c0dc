// The file that was written once, by Python: read here, it gives the outputs it gave there.
#include "check.h"
#include "lstm_fastkernels/file.h"
#include "stored.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

const std::vector<std::string> kNames = {"cell",    "dense",   "encoder.sparse", "encoder.wide",
                                         "grouped", "mixture", "projected"};

File golden() { return File::open(test_path("data/golden_v2.safetensors")); }

// What tests/golden.py stored beside an LSTM.
Sequence stored_sequence(const File &file, const std::string &name) {
  const std::vector<int64_t> sizes = file.tensor(name + "_x").shape; // [T, B, I]
  Sequence sequence{file.lstm(name).shape, sizes.at(0), sizes.at(1), {}, {}, {}, {}};
  CHECK(sizes.at(2) == sequence.shape.input_size);
  sequence.x = file.float32(name + "_x");
  sequence.h0 = file.float32(name + "_h0");
  sequence.c0 = file.float32(name + "_c0");
  return sequence;
}

Result stored_result(const File &file, const std::string &name) {
  return {file.float32(name + "_y"), file.float32(name + "_h"), file.float32(name + "_c")};
}

TEST(the_golden_file_has_its_lstms) {
  const File file = golden();
  CHECK(file.lstm_names() == kNames);
  CHECK((file.metadata() == std::map<std::string, std::string>{{"made_by", "tests/golden.py"}}));
  CHECK(file.lstm("cell").class_name == "FastQuantLSTMCell");
  CHECK(file.lstm("encoder.sparse").class_name == "FastSparseLSTM");
  CHECK(file.lstm("dense").shape.num_directions == 2 && !file.lstm("encoder.wide").bias);
  CHECK_SAME(file.float32("halves"), (std::vector<float>{0, 1, 2}));
}

TEST(the_golden_file_gives_its_outputs) {
  const File file = golden();
  for (const std::string &name : kNames) {
    WITH("LSTM ", name);
    const Lstm lstm = Lstm::load(file, name);
    const Sequence sequence = stored_sequence(file, name);
    CHECK(sequence.T == 6 && sequence.B == 3);
    for_each_isa(
        [&](std::string_view) { check_same(forward(lstm, sequence), stored_result(file, name)); });
  }
}

} // namespace
} // namespace lstm_fastkernels
