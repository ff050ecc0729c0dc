// How many processors this process may use: more threads than that only wait for each other.
#pragma once

#include <string>

namespace lstm_fastkernels {

// At least 1: the calling thread's affinity, and the CPU quota of the process's cgroups, which is
// read again after a second at the earliest.
int usable_processors();

// For tests: as if there were so many; 0: as it is.
void assume_processors(int count);

// Processors that the CPU quotas of cgroups (v1: cpu.cfs_quota_us, v2: cpu.max) allow the process,
// of itself and of those it lies in, rounded up; 0 without a quota. `root` is where /proc and the
// mounted file systems are: "" but in tests.
int cgroup_processors(const std::string &root);

} // namespace lstm_fastkernels
