#include "common/plane.h"

#include <string>
#include <utility>

#include "common/fail.h"

namespace lstm_fastkernels {
namespace {

// More elements than any memory holds.
constexpr int64_t kMostElements = int64_t{1} << 46;

struct Dimension {
  int64_t size, stride;
};

// Elements from the first to the last of so many columns; -1 where they are too many.
int64_t span_of(int64_t columns, const Dimension &dimension) {
  int64_t span = dimension.stride;
  if (dimension.size == 1)
    return columns;
  if (span < -kMostElements || span > kMostElements ||
      __builtin_mul_overflow(span < 0 ? -span : span, dimension.size - 1, &span) ||
      span > kMostElements)
    return -1;
  return span + columns;
}

void check_strides(const char *name, int64_t columns, Dimension inner, Dimension outer,
                   bool apart) {
  const auto magnitude = [](const Dimension &d) { return d.stride < 0 ? -d.stride : d.stride; };
  const int64_t spans[] = {span_of(columns, inner), span_of(columns, outer)};
  if (spans[0] < 0 || spans[1] < 0)
    fail(std::string(name) + ": its strides are out of range");
  if (!apart)
    return;
  if (inner.size > 1 && outer.size > 1 && magnitude(inner) > magnitude(outer))
    std::swap(inner, outer);
  if ((inner.size > 1 && magnitude(inner) < columns) ||
      (outer.size > 1 && magnitude(outer) < span_of(columns, inner)))
    fail(std::string(name) + ": its strides make rows overlap");
}

} // namespace

void check_memory(const LstmArguments &a, const LstmShape &shape) {
  if (!a.x || !a.y || !a.h_n || !a.c_n)
    fail("x, y, h_n and c_n must not be null");
  const int64_t rows = a.batch_size, steps = a.batch_sizes ? 1 : a.time_steps;
  const int64_t x_columns = a.id_type == IdType::none ? shape.input_size : 1;
  check_strides("x", x_columns, {rows, a.x_row_stride}, {steps, a.x_time_stride}, false);
  check_strides("y", shape.num_directions * shape.output_size(), {rows, a.y_row_stride},
                {steps, a.y_time_stride}, true);
}

} // namespace lstm_fastkernels
