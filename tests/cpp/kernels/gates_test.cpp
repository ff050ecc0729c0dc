// sigmoid, tanh and the state update inside step(): against double, at their limits, and the same
// bits on every instruction set. Weights are zero; gates come in as input_gates.
#include <cmath>
#include <cstring>
#include <limits>

#include "check.h"
#include "common/numerics.h"
#include "kernels/implementations.h"
#include "rows.h"
#include "stack.h"
#include "support.h"

namespace lstm_fastkernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// What numerics.h states for tanh, what follows for sigmoid = 0.5 tanh(0.5 x) + 0.5, and half a
// unit in the last place of a number up to 1.
constexpr double kTanhError = 3.2e-7;
constexpr double kRounding = 0x1p-25;
constexpr double kSigmoidError = kTanhError / 2 + kRounding;

// A hidden matrix of zeros.
class ZeroMatrix {
public:
  ZeroMatrix(int64_t tiles, Arithmetic arithmetic) {
    const Precision precision = arithmetic == Arithmetic::float32    ? kFloat32
                                : arithmetic == Arithmetic::signed16 ? kInt16
                                : arithmetic == Arithmetic::int4     ? kInt4
                                                                     : kInt8;
    SourceStack stack =
        random_stack(shape_of(1, tiles * kTileUnits, 0, 1, 1, precision), Weights::pair_safe, 1);
    stack.for_each_matrix([](SourceMatrix &m) { m.weights.assign(m.weights.size(), 0.0f); });
    packed_ = stack.packed();
    matrix_ = PackedStack(packed_.data(), packed_.size()).layers[0].hh;
    matrix_.arithmetic = arithmetic;
  }
  const Matrix &view() const { return matrix_; }

private:
  std::vector<uint8_t> packed_;
  Matrix matrix_;
};

struct Gates {
  float i, f, g, o, c;
};

struct Cells {
  std::vector<float> c, h;
};

// One cell each, 8 cells a tile and `tiles` tiles a row, the last row filled up with zeros.
Cells step(std::string_view isa, const std::vector<Gates> &cells, int64_t tiles = 1,
           Arithmetic arithmetic = Arithmetic::pairs8) {
  const ZeroMatrix zero(tiles, arithmetic);
  const int64_t units = tiles * kTileUnits;
  const int64_t rows = divide_up(static_cast<int64_t>(cells.size()), units);
  std::vector<float> in(static_cast<size_t>(rows * units * 4), 0.0f);
  Cells out;
  out.c.assign(static_cast<size_t>(rows * units), 0.0f);
  out.h = out.c;
  for (size_t n = 0; n < cells.size(); ++n) {
    float *tile = in.data() + n / kTileUnits * kTileRows + n % kTileUnits;
    const float gates[] = {cells[n].i, cells[n].f, cells[n].g, cells[n].o};
    for (int gate = 0; gate < 4; ++gate)
      tile[gate * kTileUnits] = gates[gate];
    out.c[n] = cells[n].c;
  }
  HeldRows h_in(zero.view(), rows, units);
  kernels(isa).step(
      zero.view(), all_tiles(zero.view()),
      step_arguments(zero.view(), rows, h_in.view(), in.data(), out.c.data(), out.h.data()));
  return out;
}

float bounded(Random &random) { return random.real(-12, 12); }
float any_bits(Random &random) { return float_of(static_cast<uint32_t>(random.bits())); }
float denormal(Random &random) {
  return float_of(static_cast<uint32_t>(random.bits()) & 0x807fffff);
}

using Draw = float (*)(Random &);

std::vector<Gates> random_cells(size_t count, Draw draw, uint64_t seed) {
  Random random(seed);
  std::vector<Gates> cells(count);
  for (Gates &g : cells)
    g = {draw(random), draw(random), draw(random), draw(random), draw(random)};
  return cells;
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// Each cell's c is within `error` of expected(cell).
template <class Expected>
void check_c(const std::vector<Gates> &cells, const Expected &expected, double error) {
  for_each_isa([&](std::string_view isa) {
    const Cells found = step(isa, cells);
    for (size_t n = 0; n < cells.size(); ++n) {
      WITH("i ", cells[n].i, " g ", cells[n].g);
      CHECK(std::abs(found.c[n] - expected(cells[n])) <= error);
    }
  });
}

// With the input gate open, no state and the output gate closed, c is tanh(g).
TEST(tanh_is_within_its_stated_error) {
  std::vector<Gates> cells;
  for (float x = -9.5f; x < 9.5f; x += 0x1p-12f)
    cells.push_back({kInfinity, 0, x, 0, 0});
  check_c(cells, [](const Gates &cell) { return std::tanh(double{cell.g}); }, kTanhError);
}

// What a GPU does for tanh's division, from any estimate of 1 / b that is off by up to a unit in
// the last place, as rcp.approx promises. In every 2^14th float; all 2^32 were tried once.
TEST(a_corrected_quotient_is_that_of_division) {
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += (1 << 14) - 1) {
    const auto word = static_cast<uint32_t>(bits);
    float x;
    std::memcpy(&x, &word, sizeof x);
    if (!(std::fabs(x) <= kTanhLimit))
      continue;
    const float z = x * x;
    const float a = x * horner(kTanhP[0], kTanhP[1], kTanhP[2], kTanhP[3], kTanhP[4], z);
    const float b = horner(kTanhQ[0], kTanhQ[1], kTanhQ[2], kTanhQ[3], kTanhQ[4], z);
    const auto estimate = static_cast<float>(1.0 / b);
    WITH("x ", x);
    CHECK(b >= 1.0f);
    CHECK(b > 1.0f || a / b == a);
    for (float reciprocal :
         {std::nextafterf(estimate, 0.0f), estimate, std::nextafterf(estimate, 2.0f)})
      CHECK(b == 1.0f || corrected_quotient(a, b, reciprocal) == a / b);
  }
}

TEST(sigmoid_follows_from_tanh) {
  std::vector<Gates> cells;
  for (float x = -20; x < 20; x += 0x1p-11f)
    cells.push_back({x, 0, kInfinity, 0, 0});
  check_c(cells, [](const Gates &cell) { return sigmoid(cell.i); }, kSigmoidError);
}

TEST(states_are_within_the_error_of_their_gates) {
  const std::vector<Gates> cells = random_cells(20000, bounded, 1);
  for_each_isa([&](std::string_view isa) {
    const Cells found = step(isa, cells);
    for (size_t n = 0; n < cells.size(); ++n) {
      const Gates &g = cells[n];
      WITH("seed 1 cell ", n);
      const double c = sigmoid(g.f) * g.c + sigmoid(g.i) * std::tanh(double{g.g});
      const double before = std::abs(double{g.c});
      // The product i * g rounds once, their sum once more, as large as it is.
      const double c_error =
          kSigmoidError * (before + 1) + kTanhError + (before + 2) * 2 * kRounding;
      CHECK(std::abs(found.c[n] - c) <= c_error);
      const double h = sigmoid(g.o) * std::tanh(double{found.c[n]});
      CHECK(std::abs(found.h[n] - h) <= kSigmoidError + kTanhError + kRounding);
    }
  });
}

TEST(gates_reach_their_limits_exactly) {
  for (float large : {18.0f, 1e30f, std::numeric_limits<float>::max(), kInfinity}) {
    WITH("large ", large);
    const std::vector<Gates> cells = {
        {large, large, large, large, 100},    {large, large, -large, large, -100},
        {-large, -large, large, large, 100},  {-large, large, large, -large, 3},
        {large, -large, 0, large, kInfinity},
    };
    for_each_isa([&](std::string_view isa) {
      const Cells found = step(isa, cells);
      CHECK(found.c[0] == 101.0f && found.h[0] == 1.0f);
      CHECK(found.c[1] == -101.0f && found.h[1] == -1.0f);
      CHECK(found.c[2] == 0.0f && found.h[2] == 0.0f);
      CHECK(found.c[3] == 3.0f && found.h[3] == 0.0f);
      CHECK(std::isnan(found.c[4]) && std::isnan(found.h[4])); // 0 * infinity
    });
  }
}

TEST(nan_stays_nan) {
  const std::vector<Gates> cells = {{kNan, 0, 0, 0, 0}, {0, kNan, 0, 0, 0}, {0, 0, kNan, 0, 0},
                                    {0, 0, 0, kNan, 0}, {0, 0, 0, 0, kNan}, {0, 0, 0, 0, 0}};
  for_each_isa([&](std::string_view isa) {
    const Cells found = step(isa, cells);
    for (size_t n = 0; n < cells.size(); ++n) {
      WITH("cell ", n);
      CHECK(std::isnan(found.h[n]) == (n != 5));
      CHECK(std::isnan(found.c[n]) == (n != 5 && n != 3));
    }
  });
}

TEST(gates_have_the_same_bits_everywhere) {
  for (Draw draw : {bounded, any_bits, denormal})
    for (Arithmetic arithmetic : {Arithmetic::pairs8, Arithmetic::any8, Arithmetic::signed16,
                                  Arithmetic::float32, Arithmetic::int4})
      for (int64_t tiles : {1, 2, 5, 17}) {
        WITH("seed 7 arithmetic ", static_cast<int>(arithmetic), " tiles ", tiles);
        const std::vector<Gates> cells = random_cells(6000, draw, 7);
        const Cells expected = step("scalar", cells, tiles, arithmetic);
        for_each_isa([&](std::string_view isa) {
          const Cells found = step(isa, cells, tiles, arithmetic);
          CHECK_SAME(found.c, expected.c);
          CHECK_SAME(found.h, expected.h);
        });
      }
}

} // namespace
} // namespace lstm_fastkernels
