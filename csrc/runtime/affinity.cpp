#include "runtime/affinity.h"

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace lstm_fastkernels {

#if defined(__linux__)

Affinity Affinity::of_this_thread() {
  Affinity affinity{};
  affinity.known_ = sched_getaffinity(0, sizeof affinity.sets_, affinity.sets_) == 0;
  return affinity;
}

int Affinity::count() const { return known_ ? CPU_COUNT_S(sizeof sets_, sets_) : -1; }

Affinity Affinity::without(int processor) const {
  Affinity others = *this;
  if (processor >= 0)
    CPU_CLR_S(static_cast<size_t>(processor), sizeof others.sets_, others.sets_);
  return others;
}

void Affinity::give_to(int thread) const {
  if (known_)
    static_cast<void>(sched_setaffinity(thread, sizeof sets_, sets_));
}

int number_of_this_thread() { return static_cast<int>(syscall(SYS_gettid)); }

int this_processor() { return sched_getcpu(); }

#else

Affinity Affinity::of_this_thread() { return {}; }
int Affinity::count() const { return -1; }
Affinity Affinity::without(int) const { return {}; }
void Affinity::give_to(int) const {}
int number_of_this_thread() { return 0; }
int this_processor() { return -1; }

#endif

} // namespace lstm_fastkernels
