// Scratch memory: kept from scope to scope, and given back on request.
#include "common/workspace.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "check.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

constexpr size_t kMegabyte = size_t{1} << 20;

// A scope of so many bytes, in two parts, and one inside.
void use(size_t bytes) {
  Workspace memory;
  {
    Workspace inner;
    std::memset(inner.allocate<char>(static_cast<int64_t>(bytes / 2)), 1, bytes / 2);
  }
  char *const first = memory.allocate<char>(static_cast<int64_t>(bytes / 2));
  std::memset(first, 2, bytes / 2);
  Workspace inner;
  std::memset(inner.allocate<char>(static_cast<int64_t>(bytes / 2)), 3, bytes / 2);
  CHECK(first[0] == 2 && first[bytes / 2 - 1] == 2);
}

TEST(scratch_memory_is_kept_and_released) {
  release_workspaces();
  const size_t before = kept_workspace_bytes();
  use(kMegabyte);
  CHECK(kept_workspace_bytes() >= before + kMegabyte);
  release_workspaces();
  CHECK(kept_workspace_bytes() == before);
  use(kMegabyte);
  {
    Workspace memory;
    release_workspaces();
    CHECK(kept_workspace_bytes() >= before + kMegabyte); // a scope's own
  }
  use(std::size_t{40} << 20); // too much to keep
  CHECK(kept_workspace_bytes() < before + 2 * kMegabyte);
  release_workspaces();
  CHECK(kept_workspace_bytes() == before);
}

TEST(scratch_memory_of_idle_threads_is_released) {
  release_workspaces();
  const size_t before = kept_workspace_bytes();
  std::atomic<int> stage{0};
  const auto wait_for = [&](int wanted) {
    while (stage < wanted)
      std::this_thread::yield();
  };
  std::thread other([&] {
    use(kMegabyte);
    stage = 1;
    wait_for(2);
    use(2 * kMegabyte);
  });
  wait_for(1);
  CHECK(kept_workspace_bytes() >= before + kMegabyte);
  release_workspaces();
  CHECK(kept_workspace_bytes() == before);
  stage = 2;
  other.join();
  CHECK(kept_workspace_bytes() == before); // with its thread
}

TEST(scratch_memory_is_released_beside_calls) {
  std::atomic<bool> done{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i)
    threads.emplace_back([&, i] {
      while (!done)
        use(static_cast<size_t>(1000 * (i + 1)));
    });
  for (int i = 0; i < 3000; ++i)
    release_workspaces();
  done = true;
  for (std::thread &thread : threads)
    thread.join();
}

TEST(impossible_amounts_are_bad_alloc) {
  Workspace memory;
  for (int64_t count : {int64_t{-1}, int64_t{1} << 58, int64_t{1} << 62}) {
    WITH("count ", count);
    bool refused = false;
    try {
      memory.allocate<double>(count);
    } catch (const std::bad_alloc &) {
      refused = true;
    }
    CHECK(refused);
  }
}

#if !defined(__SANITIZE_THREAD__)
TEST(a_forked_child_has_scratch_memory) {
  use(kMegabyte);
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    use(2 * kMegabyte);
    release_workspaces();
    use(kMegabyte);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
#endif

} // namespace
} // namespace lstm_fastkernels
