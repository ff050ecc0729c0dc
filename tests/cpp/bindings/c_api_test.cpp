// The C interface as a C program sees it: c_api.c.
#include "c_api.h"

#include <string>
#include <thread>

#include "check.h"
#include "lstm_fastkernels.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

// test(arguments) returns what is wrong, or null.
template <class... Arguments>
void check_c(const char *(*test)(Arguments...), Arguments... arguments) {
  for_each_isa([&](std::string_view) {
    const char *wrong = test(arguments...);
    if (wrong)
      throw check::Failure{wrong};
  });
}

TEST(c_reads_files) { check_c(c_files); }
TEST(c_maps_files) { check_c(c_mapped_files); }
TEST(c_is_told_of_broken_files) { check_c(c_broken_files); }
TEST(c_takes_strides_and_lengths) { check_c(c_strides_and_lengths); }
TEST(c_has_states) { check_c(c_states); }
TEST(c_has_streams) { check_c(c_streams); }
TEST(c_is_told_of_errors) { check_c(c_errors); }
TEST(c_may_pass_null) { check_c(c_null_pointers); }

TEST(c_has_the_golden_outputs) {
  for (const char *name :
       {"cell", "dense", "encoder.sparse", "encoder.wide", "mixture", "projected"}) {
    WITH("LSTM ", name);
    check_c(c_outputs, name);
  }
}

TEST(c_errors_are_of_their_thread) {
  lfk_file *file = nullptr;
  CHECK(lfk_file_open("/nowhere/here", &file) == LFK_IO_ERROR);
  std::string before = "?", after;
  std::thread([&] {
    before = lfk_last_error();
    lfk_file_open("/nowhere/there", &file);
    after = lfk_last_error();
  }).join();
  CHECK(before.empty() && after.find("there") != std::string::npos);
  CHECK(std::string(lfk_last_error()).find("/nowhere/here") == 0);
}

} // namespace
} // namespace lstm_fastkernels
