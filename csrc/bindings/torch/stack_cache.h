// Packed weights that were checked before, remembered by holding their tensor: they are checked
// once, not at each call.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "bindings/torch/tensors.h"

namespace lstm_fastkernels {

// `Parsed` may point into the tensor's memory.
template <class Parsed> class StackCache {
public:
  // What parse() made of this tensor, now or before.
  template <class Parse>
  std::shared_ptr<const Parsed> find(const Tensor &packed, const Parse &parse) {
    const void *const data = packed.const_data_ptr();
    const int64_t bytes = packed.numel();
    if (auto parsed = known(data, bytes))
      return parsed;
    std::shared_ptr<const Entry> oldest; // freed without the lock
    const std::lock_guard<std::mutex> lock(mutex_);
    auto found = place(data, bytes);
    if (found == entries_.end()) {
      auto made = std::make_shared<const Entry>(Entry{packed, data, bytes, parse()});
      if (entries_.size() == kMost) {
        oldest = std::move(entries_.front());
        entries_.erase(entries_.begin());
      }
      found = entries_.insert(entries_.end(), std::move(made));
    }
    return used(found);
  }

  // What was made of the bytes there before; null if nothing was.
  std::shared_ptr<const Parsed> known(const void *data, int64_t bytes) {
    const std::shared_ptr<const Entry> entry = last().lock();
    if (entry && is_of(*entry, data, bytes))
      return {entry, &entry->parsed};
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = place(data, bytes);
    return found == entries_.end() ? nullptr : used(found);
  }

  // The tensor that was at that address when it was met first.
  void forget(const void *data) {
    std::shared_ptr<const Entry> forgotten; // freed without the lock: freeing a tensor may wait
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = std::find_if(entries_.begin(), entries_.end(),
                                    [&](const auto &entry) { return entry->data == data; });
    if (found == entries_.end())
      return;
    forgotten = std::move(*found);
    entries_.erase(found);
  }

  void clear() {
    Entries forgotten;
    const std::lock_guard<std::mutex> lock(mutex_);
    forgotten.swap(entries_);
  }

private:
  struct Entry {
    Tensor packed;
    const void *data;
    int64_t bytes;
    Parsed parsed;
  };

  // Tensors that nobody forgets, such as those of exported programs, stay until so many others came
  // after them.
  static constexpr size_t kMost = 256;
  using Entries = std::vector<std::shared_ptr<const Entry>>;

  // The entry's tensor may have been given other memory since.
  static bool is_of(const Entry &entry, const void *data, int64_t bytes) {
    return entry.data == data && entry.bytes == bytes && entry.packed.const_data_ptr() == data;
  }

  // Of this thread.
  static std::weak_ptr<const Entry> &last() {
    thread_local std::weak_ptr<const Entry> entry;
    return entry;
  }

  typename Entries::iterator place(const void *data, int64_t bytes) {
    return std::find_if(entries_.begin(), entries_.end(),
                        [&](const auto &entry) { return is_of(*entry, data, bytes); });
  }

  // Puts it last, as the last used one.
  std::shared_ptr<const Parsed> used(typename Entries::iterator found) {
    std::rotate(found, found + 1, entries_.end());
    const std::shared_ptr<const Entry> &entry = entries_.back();
    last() = entry;
    return {entry, &entry->parsed};
  }

  std::mutex mutex_;
  Entries entries_; // the least recently used first
};

} // namespace lstm_fastkernels
