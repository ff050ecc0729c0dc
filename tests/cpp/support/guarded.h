// An array that ends where readable memory ends: AddressSanitizer does not see what a masked vector
// load reads, the page after does.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <new>
#include <vector>

namespace lstm_fastkernels {

template <class T> class Guarded {
public:
  explicit Guarded(const std::vector<T> &values) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t bytes = values.size() * sizeof(T);
    const size_t readable = (bytes + page - 1) / page * page;
    mapped_ = readable + page;
    base_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base_ == MAP_FAILED)
      throw std::bad_alloc();
    char *const end = static_cast<char *>(base_) + readable;
    mprotect(end, page, PROT_NONE);
    data_ = reinterpret_cast<T *>(end - bytes);
    std::copy(values.begin(), values.end(), data_);
  }
  ~Guarded() { munmap(base_, mapped_); }
  Guarded(const Guarded &) = delete;
  Guarded &operator=(const Guarded &) = delete;

  T *data() const { return data_; }

private:
  void *base_;
  T *data_;
  size_t mapped_;
};

} // namespace lstm_fastkernels
