// The container: files of any length, and freedoms that a header has. malformed_test.cpp has those
// that contradict themselves.
#include "check.h"
#include "lstm_fastkernels/file.h"
#include "stored.h"

namespace lstm_fastkernels {
namespace {

const Bytes kData(11, 7);
const std::string kHeader = R"({"a":{"dtype":"I32","shape":[2],"data_offsets":[0,8]},)"
                            R"("b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}})";

TEST(every_file_that_is_cut_short_is_refused) {
  const Bytes whole = safetensors(kHeader, kData);
  for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
    WITH("bytes ", bytes);
    check_refused(Bytes(whole.begin(), whole.begin() + static_cast<int64_t>(bytes)), "");
  }
}

TEST(headers_of_more_than_a_hundred_megabytes_are_refused) {
  check_refused(safetensors(kHeader + std::string(100'000'001 - kHeader.size(), ' '), kData),
                "not a safetensors file, or cut short: its header takes 100000001 bytes");
}

TEST(spaces_behind_the_header_are_none_of_it) {
  for (size_t spaces : {1, 7, 8})
    load_all(safetensors(kHeader + std::string(spaces, ' '), kData));
}

TEST(keys_that_stand_in_two_objects_are_no_duplicates) {
  load_all(safetensors(R"({"__metadata__":{"a":"","shape":""},)" + kHeader.substr(1), kData));
}

TEST(tensors_of_no_elements_may_lie_anywhere_between_others) {
  for (const char *at : {"0,0", "8,8", "11,11"})
    load_all(safetensors(check::text(R"({"c":{"dtype":"F32","shape":[5,0],"data_offsets":[)", at,
                                     "]},", kHeader.substr(1)),
                         kData));
}

} // namespace
} // namespace lstm_fastkernels
