#pragma once

#include <string>

namespace lstm_fastkernels {

// Throws Error with ErrorCode::invalid_argument.
[[noreturn]] void fail(const std::string &message);

} // namespace lstm_fastkernels
