// How many processors a process may use, by its affinity and by the quotas of its cgroups.
#include "runtime/processors.h"

#include <sched.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "check.h"
#include "folder.h"
#include "runtime/affinity.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

// A machine's files.
class Machine {
public:
  Machine &write(const std::string &path, const std::string &text) {
    const std::filesystem::path file = root_.path(path);
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text << "\n";
    return *this;
  }
  Machine &in(const std::string &cgroups, const std::string &mounts) {
    return write("proc/self/cgroup", cgroups).write("proc/self/mountinfo", mounts);
  }
  int processors() const { return cgroup_processors(root_.path()); }

private:
  const Folder root_;
};

constexpr char kV2[] = "24 1 0:22 / / rw - ext4 /dev/vda rw\n"
                       "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw";
constexpr char kV1[] = "31 24 0:27 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
                       "32 24 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct";

TEST(there_may_be_no_quota) {
  CHECK(Machine().processors() == 0);
  CHECK(Machine().in("0::/", kV2).processors() == 0);
  CHECK(Machine().in("nonsense\n:\n", "more - \n -\n").processors() == 0);
  for (const char *text : {"max 100000", "", "max", "-1 100000", "0 100000", "100000 0", "a b"}) {
    WITH(text);
    CHECK(Machine().in("0::/", kV2).write("sys/fs/cgroup/cpu.max", text).processors() == 0);
  }
}

TEST(quotas_of_version_2) {
  const auto limit = [](const char *text) {
    return Machine().in("0::/", kV2).write("sys/fs/cgroup/cpu.max", text).processors();
  };
  CHECK(limit("200000 100000") == 2);
  CHECK(limit("150000 100000") == 2);
  CHECK(limit("1000 100000") == 1);
  CHECK(limit("9223372036854775807 1000") == 1000000);
}

TEST(quotas_of_the_cgroups_around) {
  Machine machine;
  machine.in("0::/a/b", kV2).write("sys/fs/cgroup/a/b/cpu.max", "max 100000");
  CHECK(machine.processors() == 0);
  machine.write("sys/fs/cgroup/a/cpu.max", "300000 100000");
  CHECK(machine.processors() == 3);
  machine.write("sys/fs/cgroup/a/b/cpu.max", "700000 100000");
  CHECK(machine.processors() == 3);
  machine.write("sys/fs/cgroup/a/b/cpu.max", "100000 100000");
  CHECK(machine.processors() == 1);
  machine.write("sys/fs/cgroup/other/cpu.max", "1 100000").in("0::/a", kV2);
  CHECK(machine.processors() == 3);
}

TEST(quotas_of_version_1) {
  Machine machine;
  const std::string cpu = "sys/fs/cgroup/cpu,cpuacct/";
  machine.in("3:cpuset:/x\n2:cpu,cpuacct:/a\n0::/", kV1)
      .write(cpu + "a/cpu.cfs_quota_us", "-1")
      .write(cpu + "a/cpu.cfs_period_us", "100000");
  CHECK(machine.processors() == 0);
  machine.write(cpu + "a/cpu.cfs_quota_us", "250000");
  CHECK(machine.processors() == 3);
}

// The path is the host's, what is mounted the container's own.
TEST(quotas_in_a_container) {
  Machine machine;
  machine.in("2:cpu,cpuacct:/docker/abc", kV1)
      .write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000")
      .write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000");
  CHECK(machine.processors() == 2);
  std::string mounts = kV1;
  mounts.replace(mounts.rfind(" / /"), 3, " /docker/abc ");
  machine.in("2:cpu,cpuacct:/docker/abc/job", mounts)
      .write("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "100000")
      .write("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000");
  CHECK(machine.processors() == 1);
}

TEST(affinity_counts) {
  assume_processors(0);
  const int all = usable_processors();
  int bound = 0;
  std::thread([&] {
    cpu_set_t set, one;
    CPU_ZERO(&one);
    sched_getaffinity(0, sizeof set, &set);
    for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++i)
      if (CPU_ISSET(i, &set))
        CPU_SET(i, &one);
    sched_setaffinity(0, sizeof one, &one);
    bound = usable_processors();
  }).join();
  assume_processors(kManyProcessors);
  CHECK(all >= 1);
  CHECK(bound == 1);
  CHECK(usable_processors() == kManyProcessors);
}

TEST(a_thread_can_be_kept_from_a_processor) {
  const Affinity before = Affinity::of_this_thread();
  int from = -1, to = -1;
  Affinity kept = before, all = before;
  std::thread([&] {
    from = this_processor();
    before.without(from).give_to(number_of_this_thread());
    to = this_processor();
    kept = Affinity::of_this_thread();
    before.without(-1).give_to(0);
    all = Affinity::of_this_thread();
  }).join();
  const bool can_leave = before.count() > 1;
  CHECK((to != from) == can_leave);
  CHECK(kept.count() == before.count() - can_leave && all.count() == before.count());
}

} // namespace
} // namespace lstm_fastkernels
