#include "reference.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/numerics.h"

namespace lstm_fastkernels {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

bool finite(const std::vector<float> &v) {
  return std::all_of(v.begin(), v.end(), [](float f) { return std::isfinite(f); });
}

// What a matrix is multiplied with: integers, less their zero point but for int4, or floats.
struct Operand {
  std::vector<int32_t> integers;
  std::vector<float> floats;
  float scale;
  int32_t zero_point = 0;
};

float multiply_add(const SourceMatrix &matrix, size_t row, const Operand &x, float addend);

// For the matrix itself, or U.
Operand plain_operand_for(const SourceMatrix &matrix, const std::vector<float> &v, RowKind kind) {
  if (matrix.is_int4()) {
    QuantizedRow row = reference_quantize8(v, kind);
    for (int32_t &value : row.values)
      value += row.zero_point;
    return {row.values, {}, row.scale, row.zero_point};
  }
  if (matrix.precision != kFloat32) {
    const QuantizedRow row = matrix.precision == kInt8
                                 ? reference_quantize8(v, kind)
                                 : reference_quantize16(v, kind, matrix.activation_max());
    return {row.values, {}, row.scale};
  }
  return finite(v) ? Operand{{}, v, 1.0f} : Operand{{}, std::vector<float>(v.size()), kNan};
}

// By way of V where the matrix is low-rank.
Operand operand_for(const SourceMatrix &matrix, const std::vector<float> &v, RowKind kind) {
  if (matrix.v.empty())
    return plain_operand_for(matrix, v, kind);
  const SourceMatrix &inner = matrix.v.front();
  const Operand x = plain_operand_for(inner, v, kind);
  std::vector<float> between;
  for (size_t row = 0; row < static_cast<size_t>(inner.rows); ++row)
    between.push_back(multiply_add(inner, row, x, -0.0f)); // adding -0 changes nothing
  return plain_operand_for(matrix, between, RowKind::any);
}

float multiply_add(const SourceMatrix &matrix, size_t row, const Operand &x, float addend) {
  const auto r = static_cast<int64_t>(row);
  if (matrix.is_int4())
    return std::fma(matrix.int4_product(r, x.integers, x.zero_point), x.scale, addend);
  const float sum = x.floats.empty() ? static_cast<float>(matrix.product(r, x.integers))
                                     : matrix.product(r, x.floats);
  return std::fma(sum, x.scale * matrix.scale(r), addend);
}

// One layer and direction of one row of the batch.
class Cell {
public:
  Cell(const LstmShape &shape, const SourceLayer &layer, std::vector<float> h0,
       std::vector<float> c0)
      : shape_(shape), layer_(layer), h(h0), c(c0), h_(operand_for(layer.hh, h0, h_kind())) {
    if (!finite(c0))
      h_.scale = kNan;
  }

  void step(const std::vector<float> &input) {
    const Operand x = operand_for(layer_.ih, input, RowKind::any);
    std::vector<float> out(c.size());
    for (size_t unit = 0; unit < c.size(); ++unit)
      out[unit] = update(x, unit);
    h = shape_.proj_size ? project(operand_for(layer_.hr, out, RowKind::bounded)) : out;
    h_ = operand_for(layer_.hh, h, h_kind());
  }

private:
  RowKind h_kind() const { return shape_.proj_size ? RowKind::any : RowKind::bounded; }

  float gate(const Operand &x, size_t row) const {
    return multiply_add(layer_.hh, row, h_, multiply_add(layer_.ih, row, x, layer_.bias[row]));
  }

  // The new c of a unit; returns o tanh(c).
  float update(const Operand &x, size_t unit) {
    const size_t units = c.size();
    const float i = reference_sigmoid(gate(x, unit));
    const float f = reference_sigmoid(gate(x, units + unit));
    const float g = reference_tanh(gate(x, 2 * units + unit));
    const float o = reference_sigmoid(gate(x, 3 * units + unit));
    c[unit] = std::fma(f, c[unit], i * g);
    return o * reference_tanh(c[unit]);
  }

  std::vector<float> project(const Operand &from) const {
    std::vector<float> to;
    for (size_t row = 0; row < static_cast<size_t>(layer_.hr.rows); ++row)
      to.push_back(multiply_add(layer_.hr, row, from, -0.0f)); // adding -0 changes nothing
    return to;
  }

  const LstmShape &shape_;
  const SourceLayer &layer_;

public:
  std::vector<float> h, c;

private:
  Operand h_;
};

std::vector<float> part(const std::vector<float> &all, int64_t index, int64_t size) {
  return {all.begin() + index * size, all.begin() + (index + 1) * size};
}

void append(std::vector<float> &to, const std::vector<float> &from) {
  to.insert(to.end(), from.begin(), from.end());
}

Result forward_row(const SourceStack &stack, const Sequence &row) {
  const LstmShape &shape = stack.shape;
  Result result;
  std::vector<std::vector<float>> in, out;
  for (int64_t t = 0; t < row.T; ++t)
    in.push_back(part(row.x, t, shape.input_size));
  for (int64_t layer = 0; layer < shape.num_layers; ++layer, in = out) {
    out.assign(in.size(), {});
    for (int64_t direction = 0; direction < shape.num_directions; ++direction) {
      const int64_t index = layer * shape.num_directions + direction;
      Cell cell(shape, stack.layers[static_cast<size_t>(index)],
                part(row.h0, index, shape.output_size()), part(row.c0, index, shape.hidden_size));
      for (size_t s = 0; s < in.size(); ++s) {
        const size_t t = direction == 0 ? s : in.size() - 1 - s;
        cell.step(in[t]);
        append(out[t], cell.h);
      }
      append(result.h, cell.h);
      append(result.c, cell.c);
    }
  }
  for (const std::vector<float> &step : out)
    append(result.y, step);
  return result;
}

// Puts [outer, columns] in place as row `row` of [outer, rows, columns].
void put(const std::vector<float> &from, int64_t columns, int64_t rows, int64_t row,
         std::vector<float> &to) {
  for (size_t i = 0; i < from.size(); ++i) {
    const auto outer = static_cast<int64_t>(i) / columns,
               column = static_cast<int64_t>(i) % columns;
    to[static_cast<size_t>((outer * rows + row) * columns + column)] = from[i];
  }
}

} // namespace

QuantizedRow reference_quantize8(std::vector<float> v, RowKind kind) {
  QuantizedRow row;
  row.values.resize(v.size());
  if (!finite(v)) {
    row.scale = kNan;
    return row;
  }
  float unit = 1.0f;
  if (kind == RowKind::bounded) {
    float bound = 1.0f;
    for (float f : v)
      bound = std::max(bound, std::fabs(f));
    const float grid = 32767.0f / bound;
    for (float &f : v)
      f = std::nearbyint(f * grid);
    unit = bound / 32767.0f;
  }
  float lo = 0.0f, hi = 0.0f;
  for (float f : v) {
    lo = std::min(lo, f);
    hi = std::max(hi, f);
  }
  const float s = hi / 255.0f - lo / 255.0f;
  if (s < 0x1p-100f)
    return row;
  const float r = 1.0f / s, zero_point = std::nearbyint(-lo * r);
  row.scale = s * unit;
  row.zero_point = static_cast<int32_t>(zero_point);
  for (size_t i = 0; i < v.size(); ++i)
    row.values[i] = static_cast<int32_t>(
        std::clamp(std::nearbyint(v[i] * r) + zero_point, 0.0f, 255.0f) - zero_point);
  return row;
}

QuantizedRow reference_quantize16(const std::vector<float> &v, RowKind kind, int32_t max) {
  const auto limit = static_cast<float>(max);
  QuantizedRow row;
  row.values.resize(v.size());
  if (!finite(v)) {
    row.scale = kNan;
    return row;
  }
  float m = kind == RowKind::bounded ? 1.0f : 0.0f;
  for (float f : v)
    m = std::max(m, std::fabs(f));
  if (m < 1e-30f)
    return row;
  row.scale = m / limit;
  for (size_t i = 0; i < v.size(); ++i)
    row.values[i] =
        static_cast<int32_t>(std::clamp(std::nearbyint(v[i] * (limit / m)), -limit, limit));
  return row;
}

float reference_tanh(float x) {
  if (std::isnan(x))
    return x;
  x = std::clamp(x, -kTanhLimit, kTanhLimit);
  const float z = x * x;
  float p = kTanhP[4], q = kTanhQ[4];
  for (int i = 3; i >= 0; --i) {
    p = std::fma(p, z, kTanhP[i]);
    q = std::fma(q, z, kTanhQ[i]);
  }
  return std::clamp(x * p / q, -1.0f, 1.0f);
}

float reference_sigmoid(float x) { return std::fma(0.5f, reference_tanh(0.5f * x), 0.5f); }

Result reference_forward(const SourceStack &stack, const Sequence &s,
                         const std::vector<int64_t> &lengths) {
  Result all;
  arguments_for(s, all);
  std::fill(all.y.begin(), all.y.end(), 0.0f);
  for (int64_t row = 0; row < s.B; ++row) {
    const int64_t length = lengths.empty() ? s.T : lengths[static_cast<size_t>(row)];
    const Result one = forward_row(stack, s.row(row, length));
    put(one.y, s.y_columns(), s.B, row, all.y);
    put(one.h, s.shape.output_size(), s.B, row, all.h);
    put(one.c, s.shape.hidden_size, s.B, row, all.c);
  }
  return all;
}

} // namespace lstm_fastkernels
