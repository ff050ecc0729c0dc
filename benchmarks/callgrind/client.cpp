// What a program that runs under callgrind asks it for: counts.py compiles it, calls.py calls it.

#include <valgrind/callgrind.h>

extern "C" {

void start() { CALLGRIND_START_INSTRUMENTATION; }
void forget() { CALLGRIND_ZERO_STATS; }
void write_counts(const char *name) { CALLGRIND_DUMP_STATS_AT(name); }
}
