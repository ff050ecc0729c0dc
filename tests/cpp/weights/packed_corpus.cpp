// Writes what fuzz_packed starts with to a folder: packed weights of all kinds, for both backends.
#include <cstdio>
#include <fstream>
#include <string>

#include "lstm_fastkernels/cuda.h"
#include "tampered.h"

namespace lfk = lstm_fastkernels;

namespace {

void write_file(const std::string &path, const std::vector<uint8_t> &bytes) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char *>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

} // namespace

int main(int argc, char **argv) {
  if (argc != 2) {
    std::fprintf(stderr, "packed_corpus FOLDER\n");
    return 2;
  }
  int n = 0;
  for (const lfk::SourceStack &stack : lfk::kinds_of_stacks()) {
    const std::string path = std::string(argv[1]) + "/" + std::to_string(n++);
    write_file(path + ".cpu", stack.packed());
    if (lfk::is_table(stack.precision())) // of the CPU alone
      continue;
    const lfk::HeldStack held = stack.held();
    const auto cells = held.views();
    const lfk::cuda::PackPlan plan(stack.shape, cells.data());
    std::vector<uint8_t> packed(plan.bytes());
    plan.write(packed.data(), packed.size());
    write_file(path + ".cuda", packed);
  }
  return 0;
}
