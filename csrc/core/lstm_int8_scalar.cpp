// The reference: plain loops over the packed layout, the numeric contract spelled out. Every other
// instruction set must give the same bits.
#include <cmath>
#include <limits>

#include "kernels.h"
#include "numerics.h"

namespace lstm_fastkernels {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

float tanh_approx(float x) {
  x = x < -kTanhLimit ? -kTanhLimit : x; // written so that NaN stays NaN
  x = x > kTanhLimit ? kTanhLimit : x;
  const float z = x * x;
  float p = kTanhP[4], q = kTanhQ[4];
  for (int i = 3; i >= 0; --i) {
    p = std::fma(p, z, kTanhP[i]);
    q = std::fma(q, z, kTanhQ[i]);
  }
  const float t = x * p / q;
  return t < -1.0f ? -1.0f : t > 1.0f ? 1.0f : t;
}

float sigmoid_approx(float x) { return std::fma(0.5f, tanh_approx(0.5f * x), 0.5f); }

void store(uint8_t *q, int64_t i, Form form, int32_t value) {
  if (form == Form::signed16) {
    const int16_t wide = static_cast<int16_t>(value);
    std::memcpy(q + 2 * i, &wide, sizeof wide);
  } else {
    q[i] = static_cast<uint8_t>(form == Form::offset8 ? value + 128 : value);
  }
}

int32_t load(const uint8_t *q, int64_t i, Form form) {
  if (form == Form::signed16)
    return read<int16_t>(q, i);
  return form == Form::offset8 ? q[i] - 128 : static_cast<int8_t>(q[i]);
}

int32_t quantize(float v, float inverse_scale, int32_t max) {
  if (std::isnan(v))
    return 0;
  const float limit = static_cast<float>(max);
  const float scaled = std::nearbyint(v * inverse_scale);
  return static_cast<int32_t>(scaled < -limit ? -limit : scaled > limit ? limit : scaled);
}

void quantize_row(const float *v, int64_t n, float floor, const Matrix &target, uint8_t *q,
                  float *scale) {
  const int64_t padded = round_up(n, kTileUnits);
  float m = floor;
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) {
    finite = finite && std::isfinite(v[i]);
    m = std::fabs(v[i]) > m ? std::fabs(v[i]) : m;
  }
  const bool zero = !finite || m < kSmallestMagnitude;
  const float max = static_cast<float>(target.activation_max);
  *scale = !finite ? kNan : zero ? 0.0f : m / max;
  for (int64_t i = 0; i < padded; ++i)
    store(q, i, target.form, zero || i >= n ? 0 : quantize(v[i], max / m, target.activation_max));
}

int32_t product(const Matrix &matrix, int64_t tile, int64_t position, const uint8_t *q) {
  const int64_t width = columns_per_group(matrix.form);
  const uint8_t *weights = matrix.tiles + tile * matrix.tile_bytes();
  int32_t sum = 0;
  for (int64_t k = 0; k < matrix.groups * width; ++k) {
    const int64_t at = (k / width * kTileRows + position) * width + k % width;
    sum += static_cast<int8_t>(weights[at]) * load(q, k, matrix.form);
  }
  return sum;
}

void input_products(const Matrix &ih, const uint8_t *bias, int64_t rows, const ActivationRows &x,
                    float *out) {
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t i = 0; i < ih.num_tiles * kTileRows; ++i) {
      const int32_t sum = product(ih, i / kTileRows, i % kTileRows, x.from(row).data);
      *out++ = std::fma(static_cast<float>(sum), x.scales[row] * read<float>(ih.scales, i),
                        read<float>(bias, i));
    }
}

void step(const Matrix &hh, const StepArguments &a) {
  const float max = static_cast<float>(a.h_out_max);
  for (int64_t row = 0; row < a.rows; ++row) {
    const ActivationRows out = a.h_out.from(row);
    *out.scales = 1.0f / max;
    for (int64_t unit = 0; unit < hh.num_tiles * kTileUnits; ++unit) {
      const int64_t tile = unit / kTileUnits;
      float gates[4];
      for (int64_t g = 0; g < 4; ++g) {
        const int64_t position = g * kTileUnits + unit % kTileUnits;
        const int64_t i = tile * kTileRows + position;
        const int32_t sum = product(hh, tile, position, a.h_in.from(row).data);
        gates[g] = std::fma(static_cast<float>(sum), a.h_in.scales[row] * read<float>(hh.scales, i),
                            a.input_gates[row * hh.num_tiles * kTileRows + i]);
      }
      float &c = a.c[row * hh.num_tiles * kTileUnits + unit];
      c = std::fma(sigmoid_approx(gates[1]), c, sigmoid_approx(gates[0]) * tanh_approx(gates[2]));
      const float h = sigmoid_approx(gates[3]) * tanh_approx(c);
      a.h[row * hh.num_tiles * kTileUnits + unit] = h;
      if (std::isnan(h))
        *out.scales = kNan;
      store(out.data, unit, a.h_out_form, quantize(h, max, a.h_out_max));
    }
  }
}

void project(const Matrix &hr, int64_t rows, const ActivationRows &h, float *out) {
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t i = 0; i < hr.num_tiles * kTileRows; ++i) {
      const int32_t sum = product(hr, i / kTileRows, i % kTileRows, h.from(row).data);
      *out++ = static_cast<float>(sum) * (h.scales[row] * read<float>(hr.scales, i));
    }
}

} // namespace

const Kernels kScalarKernels = {quantize_row, input_products, step, project};

} // namespace lstm_fastkernels
