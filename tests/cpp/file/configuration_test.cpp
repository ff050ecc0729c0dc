// Freedoms that the configuration in a file has. malformed_test.cpp has what is refused.
#include "check.h"
#include "lstm_fastkernels/file.h"
#include "stored.h"

namespace lstm_fastkernels {
namespace {

StoredFile good() { return stored(random_stack(shape_of(3, 5), Weights::any, 71).held()); }

TEST(options_nobody_knows_are_overlooked) {
  StoredFile file = good();
  file.lstms[""]["new"] = "{\"a\":[1,null]}";
  load_all(file.bytes());
}

TEST(dropout_may_be_any_number_in_0_to_1) {
  for (const char *value : {"0", "1", "0.5", "1e-300", "-0.0"}) {
    StoredFile file = good();
    file.lstms[""]["dropout"] = value;
    load_all(file.bytes());
  }
}

TEST(block_sizes_may_be_as_large_as_an_lstm) {
  StoredFile largest = good();
  largest.lstms[""]["block_size"] = "[65528,65532]";
  load_all(largest.bytes());
}

TEST(lstms_of_similar_names_are_beside_each_other) {
  StoredFile file;
  for (const char *name : {"a", "a-", "ab", "a-b.c", "b.a"})
    file.add(name, random_stack(shape_of(3, 5), Weights::any, 73).held());
  load_all(file.bytes());
}

} // namespace
} // namespace lstm_fastkernels
