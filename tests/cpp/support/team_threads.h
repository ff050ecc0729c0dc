// Teams of threads, without the pool.
#pragma once

#include <thread>
#include <vector>

#include "runtime/team.h"

namespace lstm_fastkernels {

// A team of so many whose members, but for the leader, are threads.
class Threads {
public:
  Threads(Team &team, int others) : team_(team) {
    for (int i = 0; i < others; ++i)
      threads_.emplace_back([this] { team_.serve(); });
  }
  ~Threads() {
    team_.close();
    for (std::thread &thread : threads_)
      thread.join();
  }

private:
  Team &team_;
  std::vector<std::thread> threads_;
};

inline void wait_until_complete(const Team &team) {
  while (!team.is_complete())
    std::this_thread::yield();
}

} // namespace lstm_fastkernels
