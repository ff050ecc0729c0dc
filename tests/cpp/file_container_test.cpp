// What is no safetensors file, or one that contradicts itself. Every refusal says what is wrong.
#include <limits>

#include "check.h"
#include "lstm_fastkernels/file.h"
#include "stored.h"

namespace lstm_fastkernels {
namespace {

const Bytes kData(11, 7);
const std::string kHeader = R"({"a":{"dtype":"I32","shape":[2],"data_offsets":[0,8]},)"
                            R"("b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}})";

void check_header_refused(const std::string &header, const std::string &message) {
  check_refused(safetensors(header, kData), message);
}

// Where `from` of the header, which has nothing wrong, is `to`.
void check_change_refused(const std::string &from, const std::string &to,
                          const std::string &message) {
  WITH(to, " in the place of ", from);
  load_all(safetensors(kHeader, kData));
  check_header_refused(replaced(kHeader, from, to), message);
}

TEST(files_that_are_too_short_are_refused) {
  for (size_t bytes = 0; bytes < 8; ++bytes)
    check_refused(Bytes(bytes, '{'),
                  check::text("too short for a safetensors file, ", bytes, " bytes"));
}

TEST(every_file_that_is_cut_short_is_refused) {
  const Bytes whole = safetensors(kHeader, kData);
  for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
    WITH("bytes ", bytes);
    check_refused(Bytes(whole.begin(), whole.begin() + static_cast<int64_t>(bytes)), "");
  }
}

TEST(header_lengths_beyond_the_file_are_refused) {
  for (uint64_t length : {uint64_t{kHeader.size() + kData.size() + 1}, uint64_t{1} << 32,
                          uint64_t{1} << 63, std::numeric_limits<uint64_t>::max()}) {
    Bytes file = safetensors(kHeader, kData);
    std::memcpy(file.data(), &length, sizeof length);
    check_refused(file, check::text("not a safetensors file, or cut short: its header takes ",
                                    length, " bytes, the file has ", file.size() - 8));
  }
}

TEST(headers_of_more_than_a_hundred_megabytes_are_refused) {
  check_header_refused(kHeader + std::string(100'000'001 - kHeader.size(), ' '),
                       "not a safetensors file, or cut short: its header takes 100000001 bytes");
}

TEST(headers_that_are_no_json_are_refused) {
  for (const char *text :
       {"{", "{]", "{}x", "{}{}", "{\"a\":}", "{'a':1}", "{\"a\":NaN}", "{\"a\":\"\xff\"}",
        "{\"a\":01}", "{\"a\":[1,]}", "{\"a\":\"\n\"}", "{/**/}"}) {
    WITH("header ", text);
    check_header_refused(text, "the header is not JSON from byte ");
  }
  check_header_refused("{\"a\":1e999}", "the header has a number that is too large");
}

TEST(headers_do_not_end_at_a_zero_byte) {
  const std::string zero(1, '\0');
  for (const std::string &text : {kHeader + zero, kHeader + zero + "}", "{" + zero + "}"})
    check_header_refused(text, "the header is not JSON: it has a zero byte");
}

TEST(headers_that_do_not_start_with_a_brace_are_refused) {
  for (const char *text : {"", " ", "[]", "null", "3", " {}", "\n{}", "\xef\xbb\xbf{}"}) {
    WITH("header ", text);
    check_header_refused(text, "not a safetensors file: its header must start with '{'");
  }
}

TEST(spaces_behind_the_header_are_none_of_it) {
  for (size_t spaces : {1, 7, 8})
    load_all(safetensors(kHeader + std::string(spaces, ' '), kData));
}

TEST(headers_that_are_nested_deeply_are_refused) {
  for (size_t depth : {9, 100, 100'000}) {
    std::string open = "{\"a\":";
    for (size_t i = 0; i < depth; ++i)
      open += i % 2 ? "[" : "{\"b\":";
    check_header_refused(open, "the header is nested too deeply");
  }
}

TEST(keys_that_stand_twice_are_refused) {
  check_change_refused("\"b\":", "\"a\":", "the header has the key 'a' twice");
  check_change_refused("\"b\":", "\"\\u0061\":", "the header has the key 'a' twice");
  check_change_refused("\"dtype\":\"U8\",", "\"dtype\":\"U8\",\"dtype\":\"U8\",",
                       "the header has the key 'dtype' twice");
  check_header_refused(R"({"__metadata__":{},"__metadata__":{}})",
                       "the header has the key '__metadata__' twice");
  check_header_refused(R"({"__metadata__":{"k":"","k":""}})", "the header has the key 'k' twice");
}

TEST(keys_that_stand_in_two_objects_are_no_duplicates) {
  load_all(safetensors(R"({"__metadata__":{"a":"","shape":""},)" + kHeader.substr(1), kData));
}

TEST(broken_entries_are_refused) {
  const std::string all_of_b = R"({"dtype":"U8","shape":[3],"data_offsets":[8,11]})";
  for (const char *text : {"[]", "3", "null", "\"U8\""})
    check_change_refused(all_of_b, text, "b must be an object");
  check_change_refused("\"dtype\":\"U8\",", "", "b: 'dtype' is missing");
  check_change_refused("\"shape\":[3],", "", "b: 'shape' is missing");
  check_change_refused(",\"data_offsets\":[8,11]", "", "b: 'data_offsets' is missing");
  for (const char *dtype : {"3", "null", "[\"U8\"]"})
    check_change_refused("\"U8\"", dtype, "b: 'dtype' must be a string");
  for (const char *dtype : {"", "u8", "U8 ", "I4", "F128"})
    check_change_refused("U8", dtype, check::text("b: unknown dtype '", dtype, "'"));
}

TEST(impossible_shapes_are_refused) {
  for (const char *shape : {"3", "null", "{}", "[-3]", "[3.0]", "[\"3\"]", "[true]", "[[3]]",
                            "[3e0]", "[-0]", "[9223372036854775808]", "[18446744073709551616]"})
    check_change_refused("[3]", shape, "b: 'shape' must hold integers that are not negative");
}

TEST(impossible_offsets_are_refused) {
  for (const char *offsets :
       {"8", "null", "[]", "[8]", "[8,11,11]", "[8,11.0]", "[8.0,11]", "[-8,11]", "[8,-11]",
        "[null,11]", "[8,9223372036854775808]", "{\"8\":11}"})
    check_change_refused("[8,11]", offsets,
                         "b: 'data_offsets' must hold two integers that are not negative");
}

TEST(shapes_that_overflow_are_refused) {
  for (const char *shape :
       {"[4611686018427387904,2]", "[9223372036854775807,3]", "[2147483648,2147483648,2147483648]",
        "[4294967296,4294967296]", "[9223372036854775807,9223372036854775807,0]"})
    check_change_refused("[3]", shape, "b: its shape is too large");
  // By the size of an element alone.
  check_change_refused("[2]", "[2305843009213693952]", "a: its shape is too large");
}

TEST(shapes_that_are_not_the_offsets_are_refused) {
  check_change_refused("[3]", "[2]", "b: its shape takes 2 bytes, 'data_offsets' are 8 and 11");
  check_change_refused("[3]", "[]", "b: its shape takes 1 bytes");
  check_change_refused("[3]", "[3,0]", "b: its shape takes 0 bytes");
  check_change_refused("U8", "U16", "b: its shape takes 6 bytes");
  check_change_refused("[8,11]", "[11,8]", "b: its shape takes 3 bytes, 'data_offsets' are 11");
  check_change_refused("[8,11]", "[8,9223372036854775807]", "b: its shape takes 3 bytes");
}

TEST(tensors_beyond_the_data_are_refused) {
  check_change_refused("[8,11]", "[9,12]", "b: ends at byte 12 of the data, which has 11");
  check_change_refused("[8,11]", "[9223372036854775804,9223372036854775807]",
                       "b: ends at byte 9223372036854775807 of the data, which has 11");
  check_change_refused("[3],\"data_offsets\":[8,11]", "[0],\"data_offsets\":[12,12]",
                       "b: ends at byte 12 of the data");
}

TEST(tensors_that_overlap_are_refused) {
  check_change_refused("[8,11]", "[7,10]", "b: overlaps another tensor at byte 7 of the data");
  check_change_refused("[8,11]", "[0,3]", "a: overlaps another tensor at byte 0 of the data");
  check_change_refused("[3],\"data_offsets\":[8,11]", "[8],\"data_offsets\":[0,8]",
                       "b: overlaps another tensor at byte 0 of the data");
}

TEST(holes_between_tensors_are_refused) {
  const std::string second = "[8,11]";
  check_refused(safetensors(replaced(kHeader, second, "[9,12]"), Bytes(12)),
                "b: begins at byte 9 of the data, the tensor before it ends at 8");
  check_header_refused(R"({"b":{"dtype":"U8","shape":[10],"data_offsets":[1,11]}})",
                       "b: begins at byte 1 of the data, the tensor before it ends at 0");
}

TEST(bytes_behind_the_tensors_are_refused) {
  check_refused(safetensors(kHeader, Bytes(12)),
                "its tensors end at byte 11 of the data, which has 12");
  check_refused(safetensors("{}", Bytes(1)), "its tensors end at byte 0 of the data, which has 1");
}

TEST(tensors_of_no_elements_may_lie_anywhere_between_others) {
  for (const char *at : {"0,0", "8,8", "11,11"})
    load_all(safetensors(check::text(R"({"c":{"dtype":"F32","shape":[5,0],"data_offsets":[)", at,
                                     "]},", kHeader.substr(1)),
                         kData));
}

TEST(metadata_that_is_no_strings_is_refused) {
  for (const char *metadata : {"null", "[]", "\"\"", "3"})
    check_header_refused(check::text("{\"__metadata__\":", metadata, "}"),
                         "__metadata__ must be an object");
  for (const char *value : {"null", "1", "[]", "{}", "true"})
    check_header_refused(check::text("{\"__metadata__\":{\"k\":", value, "}}"),
                         "__metadata__: 'k' must be a string");
}

} // namespace
} // namespace lstm_fastkernels
