// A share as people read it.
#pragma once

#include <cstdint>
#include <string>

namespace lstm_fastkernels {

// "12.5%"
inline std::string percent(int64_t part, int64_t whole) {
  const int64_t tenths = whole ? (2000 * part + whole) / (2 * whole) : 0;
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + "%";
}

} // namespace lstm_fastkernels
