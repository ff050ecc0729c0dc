// Files on the disk: read as a whole, or mapped. Functions throw Error with ErrorCode::io, whose
// message begins with the file's name, also for what is no regular file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace lstm_fastkernels {

// An open file.
class Descriptor {
public:
  explicit Descriptor(const std::string &path);
  ~Descriptor();
  Descriptor(const Descriptor &) = delete;
  int get() const { return descriptor_; }

private:
  int descriptor_;
};

std::vector<uint8_t> read_file(const std::string &path);

// The pages of a file, which all processes that map it share.
class Mapping {
public:
  // `name` is what errors call the file. The descriptor may be closed afterwards.
  Mapping(int descriptor, const std::string &name);
  ~Mapping();
  Mapping(const Mapping &) = delete;

  const uint8_t *data() const { return static_cast<const uint8_t *>(data_); }
  size_t bytes() const { return bytes_; }
  // The process need not hold these bytes any more: pages that lie in them as a whole are read
  // again when next they are looked at.
  void leave(const void *data, size_t bytes) const;

private:
  void *data_ = nullptr; // null: the file is empty
  size_t bytes_;
};

} // namespace lstm_fastkernels
