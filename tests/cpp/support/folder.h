// A folder that goes when the test ends.
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "check.h"
#include "stored.h"

namespace lstm_fastkernels {

class Folder {
public:
  Folder() {
    std::string pattern = std::filesystem::temp_directory_path() / "lstm_fastkernels_XXXXXX";
    CHECK(mkdtemp(pattern.data()));
    path_ = pattern;
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder &) = delete;

  std::string path(const std::string &name = "") const { return path_ / name; }
  std::string write(const std::string &name, const Bytes &bytes) const {
    std::ofstream out(path(name), std::ios::binary);
    out.write(reinterpret_cast<const char *>(bytes.data()),
              static_cast<std::streamsize>(bytes.size()));
    CHECK(out.good());
    return path(name);
  }

private:
  std::filesystem::path path_;
};

} // namespace lstm_fastkernels
