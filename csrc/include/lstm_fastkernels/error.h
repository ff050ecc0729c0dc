// The one exception type of this library.
#pragma once

#include <stdexcept>
#include <string>

#include "lstm_fastkernels/api.h"

namespace lstm_fastkernels {

enum class ErrorCode {
  invalid_argument = 1, // sizes, values or pointers that a caller gave
  invalid_file = 2,     // the contents of a file
  io = 3,               // the system could not read a file
  device = 4,           // CUDA refused something
};

// what() names the tensor, argument or file. Where memory ends, std::bad_alloc is thrown instead.
class LSTM_FASTKERNELS_API Error : public std::runtime_error {
public:
  Error(ErrorCode code, const std::string &message);
  ~Error() override;
  ErrorCode code() const noexcept { return code_; }

private:
  ErrorCode code_;
};

} // namespace lstm_fastkernels
