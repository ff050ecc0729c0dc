#include "lstm_fastkernels/error.h"

#include "common/fail.h"

namespace lstm_fastkernels {

Error::Error(ErrorCode code, const std::string &message)
    : std::runtime_error(message), code_(code) {}

Error::~Error() = default; // here, so that its type information lies in this library alone

void fail(const std::string &message) { throw Error(ErrorCode::invalid_argument, message); }

} // namespace lstm_fastkernels
