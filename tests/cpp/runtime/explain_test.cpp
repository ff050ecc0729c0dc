// What explain says of a call on the CPU.
#include <algorithm>
#include <string>

#include "check.h"
#include "runtime/processors.h"
#include "stack.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

using Lines = std::vector<std::string>;

Lines explained(const SourceStack &stack, LstmArguments a) {
  const std::vector<uint8_t> packed = stack.packed();
  return describe(explain(packed.data(), packed.size(), a));
}

LstmArguments arguments(int64_t T, int64_t B, int threads = 1) {
  LstmArguments a;
  a.time_steps = T;
  a.batch_size = B;
  a.threads = threads;
  return a;
}

std::string products_text(Precision precision, Weights weights) {
  if (precision == kInt4)
    return "4-bit weights, 8-bit activations";
  if (precision != kInt8)
    return precision == kInt16 ? "16-bit activations" : "float32";
  return weights == Weights::pair_safe
             ? "8-bit"
             : "8-bit; on AVX2 by 16-bit operands, the weights are not pair-safe";
}

TEST(every_matrix_has_a_line) {
  for (Precision precision : kPrecisions)
    for (Weights weights : {Weights::pair_safe, Weights::any}) {
      WITH("precision ", precision_name(precision));
      const TypedShape shape = shape_of(33, 19, 9, 2, 2, precision);
      const Lines lines = explained(random_stack(shape, weights, 1), arguments(3, 2));
      CHECK(lines.size() == 2 + 2 * 2 * 3);
      size_t next = 2;
      for (const char *suffix : {"_l0", "_l0_reverse", "_l1", "_l1_reverse"})
        for (const char *name : {"weight_ih", "weight_hh", "weight_hr"}) {
          const std::string &line = lines[next++];
          WITH(line);
          CHECK(line.rfind(std::string(name) + suffix + ": ", 0) == 0);
          CHECK(line.find(": dense, 100.0%") != std::string::npos);
          const std::string arithmetic = "; " + products_text(precision, weights);
          CHECK(line.size() > arithmetic.size() &&
                line.compare(line.size() - arithmetic.size(), arithmetic.size(), arithmetic) == 0);
        }
    }
}

TEST(shares_count_what_fills_up_apart) {
  SourceStack stack = random_stack(shape_of(8, 8), Weights::pair_safe, 2);
  // Of the strips, one for each gate, only the first has blocks: one of two. Three strips of the
  // slice are filled up to it, and four repeat the last.
  const auto clear = [](SourceMatrix &m) {
    for (size_t i = 0; i < m.weights.size(); ++i)
      m.weights[i] = i == 0 ? 1.0f : 0.0f;
  };
  stack.for_each_matrix(clear);
  const std::string arithmetic = "; 8-bit";
  Lines lines = explained(stack, arguments(1, 1));
  CHECK(lines[2] == "weight_ih_l0: dense, 12.5% of its 8x4 blocks not zero" + arithmetic);
  stack.for_each_matrix([](SourceMatrix &m) { m.block = {8, 4}; });
  lines = explained(stack, arguments(1, 1));
  CHECK(lines[3] == "weight_hh_l0: block-sparse, 12.5% of its 8x4 blocks kept, 100.0% including "
                    "padding" +
                        arithmetic);
}

TEST(the_instruction_set_is_named) {
  const SourceStack stack = random_stack(shape_of(3, 5), Weights::any, 3);
  for_each_isa([&](std::string_view isa) {
    const bool best = isa == supported_isas().back();
    CHECK(explained(stack, arguments(1, 1))[0] ==
          "instruction set: " + std::string(isa) +
              (best ? ": the highest allowed here" : ": chosen by set_isa"));
  });
}

// As if the process might use so many.
struct Processors {
  explicit Processors(int count) { assume_processors(count); }
  ~Processors() { assume_processors(kManyProcessors); }
};

TEST(no_more_threads_than_processors) {
  // A step of a row is 4 * 128 * (40 + 128) = 86,016 products in each direction.
  const SourceStack one = random_stack(shape_of(40, 128), Weights::any, 5);
  const SourceStack two = random_stack(shape_of(40, 128, 0, 1, 2), Weights::any, 5);
  const std::string row = "one direction, 9 rows in ";
  const std::string asked = " asked for, this process may use ";
  const auto check = [&](const SourceStack &stack, int64_t T, int asked_for, int processors,
                         const std::string &text) {
    WITH(asked_for, " asked for, ", processors, " processors");
    const Processors there(processors);
    CHECK(explained(stack, arguments(T, 9, asked_for))[1] == "threads: " + text);
  };
  check(one, 131, 4, 8, "4 of 4: " + row + "4 parts");
  check(one, 131, 4, 4, "4 of 4: " + row + "4 parts");
  check(one, 131, 4000, 3, "3 of 3: " + row + "3 parts; 4000" + asked + "3");
  check(one, 131, 4000, 64, "9 of 64: " + row + "9 parts; 4000" + asked + "64");
  check(two, 400, 6, 64, "6 of 6: two directions, 9 rows in 3 parts");
  check(two, 400, 6, 3, "2 of 3: two directions, 9 rows in 1 part; 6" + asked + "3");
  check(one, 131, 2, 1, "1: 2" + asked + "1");
  check(one, 131, 1, 1, "1: no more allowed");
  check(one, 1, 4000, 3,
        "1 of 3: 774144 products, a second one pays from 33554432 on, from 1048576 on in calls "
        "without a pause; 4000" +
            asked + "3");
}

// A step of a row is 4 * 256 * (128 + 256) = 393,216 products: for 6 members at most, and less than
// a core's cache holds.
TEST(threads_that_share_weights_are_told) {
  const SourceStack stack = random_stack(shape_of(128, 256), Weights::any, 6);
  const auto threads = [&](int64_t B, int processors) {
    const Processors there(processors);
    return explained(stack, arguments(90, B, processors))[1];
  };
  const std::string one = "one direction, 1 rows in 1 part, weights shared by ";
  CHECK(threads(1, 2) == "threads: 2 of 2: " + one + "2");
  CHECK(threads(1, 64) == "threads: 6 of 64: " + one + "6");
  CHECK(threads(2, 6) == "threads: 6 of 6: one direction, 2 rows in 2 parts, weights shared by 3");
  CHECK(threads(9, 6) == "threads: 6 of 6: one direction, 9 rows in 6 parts");
}

// Members meet between its factors, too.
TEST(a_low_rank_matrix_is_shared_by_fewer) {
  SourceStack thin = in_factors(random_stack(shape_of(128, 256), Weights::any, 6), 10);
  int64_t parts = 1;
  thin.for_each_matrix([&](const SourceMatrix &m) { parts += !m.v.empty(); });
  const auto packed = thin.packed();
  const CallPlan plan = explain(packed.data(), packed.size(), arguments(4000, 1, kManyProcessors));
  CHECK(parts == 3 && plan.team == 2);
  CHECK(plan.team == plan.products / 4000 / parts / (1 << 16));
}

TEST(explain_checks_as_lstm_forward_does) {
  const SourceStack stack = random_stack(shape_of(3, 5), Weights::any, 4);
  CHECK(explained(stack, arguments(2, 0)) == Lines{"nothing to run"});
  CHECK_THROWS(explained(stack, arguments(0, 1)), "time_steps must be at least 1");
  LstmArguments a = arguments(2, 1);
  const int64_t lengths[] = {3};
  a.lengths = lengths;
  CHECK_THROWS(explained(stack, a), "lengths must be in 1..2, got 3");
  const std::vector<uint8_t> packed = stack.packed();
  CHECK_THROWS(explain(packed.data(), packed.size() - 1, arguments(2, 1)), "packed weights");
}

} // namespace
} // namespace lstm_fastkernels
