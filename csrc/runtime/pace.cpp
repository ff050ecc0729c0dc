#include "runtime/pace.h"

#include <chrono>

#include "runtime/spin.h"

namespace lstm_fastkernels {
namespace {

using Clock = std::chrono::steady_clock;

thread_local Clock::time_point last_end{};

} // namespace

bool follows_closely() { return Clock::now() - last_end < kSoon; }

void note_end_of_call() { last_end = Clock::now(); }

} // namespace lstm_fastkernels
