// Which processors a thread may use.
#pragma once

#if defined(__linux__)
#include <sched.h>
#endif

namespace lstm_fastkernels {

class Affinity {
public:
  static Affinity of_this_thread();
  int count() const; // -1: nobody knows
  Affinity without(int processor) const;
  // To a thread of this process, by its number, or by 0 to the calling one. Nothing changes where
  // the system does not allow it, or where there is no processor in it.
  void give_to(int thread) const;

private:
#if defined(__linux__)
  cpu_set_t sets_[8]; // of 1024 processors each
  bool known_;
#endif
};

// Of the calling thread, for give_to.
int number_of_this_thread();

// That the calling thread is on; -1: nobody knows.
int this_processor();

} // namespace lstm_fastkernels
