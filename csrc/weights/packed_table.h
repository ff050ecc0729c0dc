// Elements of a packed table.
#pragma once

#include "common/half.h"
#include "weights/packed.h"

namespace lstm_fastkernels {

inline float table_value(const Matrix &table, int64_t i) {
  return table.arithmetic == Arithmetic::table16 ? from_half(read<uint16_t>(table.tiles, i))
                                                 : read<float>(table.tiles, i);
}

} // namespace lstm_fastkernels
