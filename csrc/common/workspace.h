// Scratch memory of a thread, kept from call to call so that a streaming step allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

namespace lstm_fastkernels {

struct KeptMemory; // of a thread

// A scope takes memory, uninitialized and aligned to 64 bytes, and gives all of it back at its end.
// Scopes of one thread nest.
class Workspace {
public:
  Workspace();
  ~Workspace();
  Workspace(const Workspace &) = delete;
  Workspace &operator=(const Workspace &) = delete;

  template <class T> T *allocate(int64_t count) {
    if (count < 0 || count > kMostBytes / static_cast<int64_t>(sizeof(T)))
      throw std::bad_alloc();
    return static_cast<T *>(allocate_bytes(static_cast<size_t>(count) * sizeof(T)));
  }

private:
  static constexpr int64_t kMostBytes = int64_t{1} << 60;

  void *allocate_bytes(size_t bytes);

  KeptMemory &kept_;
  size_t mark_;
  std::vector<std::unique_ptr<std::byte[]>> overflow_; // what the kept block had no room for
};

// Frees what threads keep, of those that are in no scope now.
void release_workspaces();

// Bytes that all threads keep.
size_t kept_workspace_bytes();

} // namespace lstm_fastkernels
