#include "check.h"

namespace check {

template std::string difference(const std::vector<float> &, const std::vector<float> &);
template std::string difference(const std::vector<uint8_t> &, const std::vector<uint8_t> &);

} // namespace check
