// What a file says about one LSTM.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "lstm_fastkernels/file.h"

namespace lstm_fastkernels {

// Throws Error with ErrorCode::invalid_file, also for options that only Python has a use for: a
// file that is wrong in one place is not trusted in another. `what` is what errors call the LSTM.
LstmConfiguration read_configuration(const nlohmann::json &from, const std::string &what);

} // namespace lstm_fastkernels
