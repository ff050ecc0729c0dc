#include "runtime/processors.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <limits>
#include <new>
#include <sstream>
#include <thread>
#include <vector>

#include "runtime/affinity.h"

namespace lstm_fastkernels {
namespace {

std::atomic<int> assumed{0};

int affinity() {
  const int known = Affinity::of_this_thread().count();
  return known >= 0 ? known : static_cast<int>(std::thread::hardware_concurrency());
}

// A hierarchy of cgroups.
struct Mount {
  std::string cgroup; // what of the hierarchy is mounted
  std::string path;
  bool is_v2 = false;
};

bool has(const std::string &list, const std::string &name) {
  return ("," + list + ",").find("," + name + ",") != std::string::npos;
}

// Those that can have CPU quotas. man 5 proc: /proc/pid/mountinfo.
std::vector<Mount> mounts(const std::string &root) {
  std::vector<Mount> found;
  std::ifstream lines(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(lines, line);) {
    const size_t dash = line.find(" - ");
    if (dash == line.npos)
      continue;
    std::istringstream before(line), after(line.substr(dash + 3));
    std::string skipped, type, source, options;
    Mount mount;
    before >> skipped >> skipped >> skipped >> mount.cgroup >> mount.path;
    after >> type >> source >> options;
    mount.is_v2 = type == "cgroup2";
    if (mount.is_v2 || (type == "cgroup" && has(options, "cpu")))
      found.push_back(mount);
  }
  return found;
}

// The process's cgroup in such a hierarchy. man 7 cgroups: lines id:controllers:path.
std::string cgroup_of(const std::string &root, bool is_v2) {
  std::ifstream lines(root + "/proc/self/cgroup");
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == line.npos)
      continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (is_v2 ? controllers.empty() : has(controllers, "cpu"))
      return line.substr(second + 1);
  }
  return "/";
}

// Of one cgroup; infinite without one.
double quota(const std::string &folder, bool is_v2) {
  double quota = -1, period = 0;
  if (is_v2) {
    std::ifstream(folder + "/cpu.max") >> quota >> period; // or "max"
  } else {
    std::ifstream(folder + "/cpu.cfs_quota_us") >> quota; // or -1
    std::ifstream(folder + "/cpu.cfs_period_us") >> period;
  }
  return quota > 0 && period > 0 ? quota / period : std::numeric_limits<double>::infinity();
}

int quota_now() {
  using Clock = std::chrono::steady_clock;
  constexpr int64_t kNever = std::numeric_limits<int64_t>::min();
  static std::atomic<int64_t> read_at{kNever};
  static std::atomic<int> last{0};
  const int64_t now =
      std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now().time_since_epoch())
          .count();
  const int64_t before = read_at.load();
  if (before == kNever || now - before > 1000) {
    last = cgroup_processors("");
    read_at = now;
  }
  return last;
}

} // namespace

int cgroup_processors(const std::string &root) {
  double least = std::numeric_limits<double>::infinity();
  for (const Mount &mount : mounts(root)) {
    std::string cgroup = cgroup_of(root, mount.is_v2);
    if (mount.cgroup != "/" && cgroup.compare(0, mount.cgroup.size(), mount.cgroup) == 0)
      cgroup.erase(0, mount.cgroup.size());
    // Up to the mounted one; in a container, a path of the host's that it does not have.
    for (;; cgroup.erase(cgroup.rfind('/'))) {
      least = std::min(least, quota(root + mount.path + cgroup, mount.is_v2));
      if (cgroup.find('/') == cgroup.npos)
        break;
    }
  }
  return std::isinf(least) ? 0 : static_cast<int>(std::min(std::ceil(least), 1e6));
}

int usable_processors() {
  if (assumed > 0)
    return assumed;
  const int quota = quota_now();
  return std::max(1, quota > 0 ? std::min(quota, affinity()) : affinity());
}

void assume_processors(int count) { assumed = count; }

} // namespace lstm_fastkernels
