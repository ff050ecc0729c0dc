// A stack and a sequence to run persistently, and what must come of them.
#pragma once

#include <utility>
#include <vector>

#include "check.h"
#include "forced.h"
#include "on_device.h"
#include "stack.h"

namespace lstm_fastkernels {

constexpr Precision kArithmetics[] = {kInt8, kInt16};

class Case {
public:
  Case(const SourceStack &stack, const Sequence &sequence, std::vector<int64_t> lengths = {})
      : on_device_(stack), sequence_(sequence), lengths_(std::move(lengths)),
        precision_(stack.precision()), expected_(forward(stack.packed(), sequence, 1, lengths_)) {}

  // With so many steps a chunk, or all of them.
  void check(const cuda::Plan &plan, int64_t steps = 0) const {
    WITH("steps a chunk ", steps);
    check_same(forward(on_device_, sequence_, plan, steps, lengths_), expected_);
    CHECK(*plan.failed == 0);
  }
  // As the shape says, but of the form of the activations.
  void check(cuda::PersistentShape shape, int64_t steps = 0) const {
    shape = of_arithmetic(shape, cuda::arithmetic_of(precision_));
    WITH(name_of(shape));
    check(plan_of(shape, sequence_.shape.num_layers), steps);
  }

  const Result &expected() const { return expected_; }

private:
  StackOnDevice on_device_;
  Sequence sequence_;
  std::vector<int64_t> lengths_;
  Precision precision_;
  Result expected_;
};

} // namespace lstm_fastkernels
