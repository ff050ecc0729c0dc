// What two threads cannot use at once: with the GIL released they could.
#pragma once

#include <atomic>
#include <string>

#include "bindings/python/arguments.h"

namespace lstm_fastkernels {

class OneUser {
public:
  // The name is that of errors.
  explicit OneUser(const char *name) : name_(name) {}
  OneUser(const OneUser &) = delete;

  // The right to read and to write it, for as long as this lives.
  class Use {
  public:
    explicit Use(OneUser &of) : busy_(of.busy_) {
      if (busy_.exchange(true, std::memory_order_acquire))
        fail(std::string(of.name_) + ": another thread is using it");
    }
    ~Use() { busy_.store(false, std::memory_order_release); }
    Use(const Use &) = delete;

  private:
    std::atomic<bool> &busy_;
  };

private:
  const char *const name_;
  std::atomic<bool> busy_{false};
};

} // namespace lstm_fastkernels
