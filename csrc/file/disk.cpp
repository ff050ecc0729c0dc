#include "file/disk.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "lstm_fastkernels/error.h"

namespace lstm_fastkernels {
namespace {

[[noreturn]] void fail_to_read(const std::string &name, const std::string &why) {
  throw Error(ErrorCode::io, name + ": " + why);
}

// Checks what `stat` found, and tells its size.
size_t regular_bytes(int result, const struct stat &status, const std::string &name) {
  if (result != 0)
    fail_to_read(name, std::strerror(errno));
  if (!S_ISREG(status.st_mode))
    fail_to_read(name, "not a regular file");
  return static_cast<size_t>(status.st_size);
}

size_t file_bytes(int descriptor, const std::string &name) {
  struct stat status{};
  return regular_bytes(fstat(descriptor, &status), status, name);
}

// Opening a FIFO waits for a writer, and a device may do anything: it is looked at first, and again
// once it is open.
int open_regular(const std::string &path) {
  struct stat status{};
  if (path.find('\0') != path.npos) // the system would take what stands before it
    fail_to_read(path.c_str(), "a path has no zero bytes");
  regular_bytes(stat(path.c_str(), &status), status, path);
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0)
    fail_to_read(path, std::strerror(errno));
  return descriptor;
}

} // namespace

Descriptor::Descriptor(const std::string &path) : descriptor_(open_regular(path)) {}

Descriptor::~Descriptor() { close(descriptor_); }

std::vector<uint8_t> read_file(const std::string &path) {
  const Descriptor file(path);
  std::vector<uint8_t> bytes(file_bytes(file.get(), path));
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t count = read(file.get(), bytes.data() + done, bytes.size() - done);
    if (count == 0)
      fail_to_read(path, "it was cut while read");
    if (count < 0 && errno != EINTR)
      fail_to_read(path, std::strerror(errno));
    done += count < 0 ? 0 : static_cast<size_t>(count);
  }
  return bytes;
}

Mapping::Mapping(int descriptor, const std::string &name) : bytes_(file_bytes(descriptor, name)) {
  if (!bytes_)
    return;
  data_ = mmap(nullptr, bytes_, PROT_READ, MAP_SHARED, descriptor, 0);
  if (data_ == MAP_FAILED)
    fail_to_read(name, std::strerror(errno));
}

Mapping::~Mapping() {
  if (data_)
    munmap(data_, bytes_);
}

void Mapping::leave(const void *data, size_t bytes) const {
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = reinterpret_cast<uintptr_t>(data);
  const uintptr_t first = (begin + page - 1) / page * page, end = (begin + bytes) / page * page;
  if (first < end)
    madvise(reinterpret_cast<void *>(first), end - first, MADV_DONTNEED);
}

} // namespace lstm_fastkernels
