// oneDNN's lstm_forward in int8: one layer, one direction. onednn.py compiles it against PyPI's
// `onednn` and `onednn-devel` and calls it.
//
// oneDNN has one static scale and shift for x, h and the outputs. h lies in (-1, 1); x is divided
// by its largest magnitude, with which W_ih is multiplied, and uses the same range.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <unordered_map>
#include <vector>

#include <dnnl.hpp>

namespace {

using dnnl::memory;
using Tag = memory::format_tag;
using Type = memory::data_type;

constexpr float kScale = 127, kShift = 128;
constexpr int kPerRow = 1 << 3 | 1 << 4; // of weights [layer, direction, column, gate, unit]

const dnnl::engine &engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

class Lstm {
public:
  Lstm(int64_t steps, int64_t batch, int64_t inputs, int64_t units, float largest_x,
       const float *weight_ih, const float *weight_hh, const float *bias)
      : stream_(engine()), largest_x_(largest_x) {
    const memory::desc src({steps, batch, inputs}, Type::u8, Tag::tnc);
    const memory::desc h({1, 1, batch, units}, Type::u8, Tag::ldnc);
    const memory::desc c({1, 1, batch, units}, Type::f32, Tag::ldnc);
    const memory::desc ih({1, 1, inputs, 4, units}, Type::s8, Tag::any);
    const memory::desc hh({1, 1, units, 4, units}, Type::s8, Tag::any);
    const memory::desc b({1, 1, 4, units}, Type::f32, Tag::ldgo);
    const memory::desc dst({steps, batch, units}, Type::f32, Tag::tnc);

    const size_t rows = static_cast<size_t>(4 * units);
    std::vector<float> scales(rows, 1);
    for (size_t row = 0; row < rows; ++row)
      if (const float most =
              std::max(largest_x * largest(weight_ih, row, inputs), largest(weight_hh, row, units)))
        scales[row] = 127 / most;
    dnnl::primitive_attr attributes;
    attributes.set_rnn_data_qparams(kScale, kShift);
    attributes.set_rnn_weights_qparams(kPerRow, scales);
    const dnnl::lstm_forward::primitive_desc description(
        engine(), dnnl::prop_kind::forward_inference,
        dnnl::rnn_direction::unidirectional_left2right, src, h, c, ih, hh, b, dst, h, c,
        attributes);

    lstm_ = dnnl::lstm_forward(description);
    src_ = memory(src, engine());
    dst_ = memory(dst, engine());
    h_ = memory(h, engine());
    c_ = memory(c, engine());
    memory biases(b, engine());
    std::copy_n(bias, rows, data<float>(biases));
    arguments_ = {
        {DNNL_ARG_SRC_LAYER, src_},
        {DNNL_ARG_SRC_ITER, h_},
        {DNNL_ARG_SRC_ITER_C, c_},
        {DNNL_ARG_WEIGHTS_LAYER, reordered(weight_ih, inputs, units, largest_x,
                                           description.weights_layer_desc(), attributes)},
        {DNNL_ARG_WEIGHTS_ITER,
         reordered(weight_hh, units, units, 1, description.weights_iter_desc(), attributes)},
        {DNNL_ARG_BIAS, biases},
        {DNNL_ARG_DST_LAYER, dst_},
        {DNNL_ARG_DST_ITER, h_},
        {DNNL_ARG_DST_ITER_C, c_},
    };
  }

  void reset() {
    std::memset(h_.get_data_handle(), static_cast<int>(kShift), h_.get_desc().get_size());
    std::memset(c_.get_data_handle(), 0, c_.get_desc().get_size());
  }

  void run(const float *x, float *y) {
    const float scale = kScale / largest_x_;
    uint8_t *const quantized = data<uint8_t>(src_);
    const size_t inputs = src_.get_desc().get_size();
    for (size_t i = 0; i < inputs; ++i)
      quantized[i] = static_cast<uint8_t>(x[i] * scale + (kShift + 0.5f));
    lstm_.execute(stream_, arguments_);
    stream_.wait();
    std::memcpy(y, dst_.get_data_handle(), dst_.get_desc().get_size());
  }

private:
  template <class T> static T *data(const memory &of) {
    return static_cast<T *>(of.get_data_handle());
  }
  static float largest(const float *weight, size_t row, int64_t columns) {
    float result = 0;
    for (int64_t i = 0; i < columns; ++i)
      result = std::max(result, std::abs(weight[static_cast<int64_t>(row) * columns + i]));
    return result;
  }
  // A matrix of nn.LSTM, [4 * units, columns], as oneDNN wants it.
  memory reordered(const float *weight, int64_t columns, int64_t units, float factor,
                   const memory::desc &wanted, const dnnl::primitive_attr &attributes) {
    memory plain({{1, 1, columns, 4, units}, Type::f32, Tag::ldigo}, engine());
    float *to = data<float>(plain);
    for (int64_t column = 0; column < columns; ++column)
      for (int64_t row = 0; row < 4 * units; ++row)
        *to++ = weight[row * columns + column] * factor;
    memory result(wanted, engine());
    dnnl::reorder(plain, result, attributes).execute(stream_, plain, result);
    stream_.wait();
    return result;
  }

  dnnl::stream stream_;
  float largest_x_;
  dnnl::lstm_forward lstm_;
  memory src_, dst_, h_, c_;
  std::unordered_map<int, memory> arguments_;
};

} // namespace

extern "C" {

// Null on an error, which `fault` then says in up to 255 characters.
void *create(int64_t steps, int64_t batch, int64_t inputs, int64_t units, float largest_x,
             const float *weight_ih, const float *weight_hh, const float *bias, char *fault) {
  try {
    return new Lstm(steps, batch, inputs, units, largest_x, weight_ih, weight_hh, bias);
  } catch (const std::exception &error) {
    std::snprintf(fault, 256, "%s", error.what());
    return nullptr;
  }
}

void destroy(void *lstm) { delete static_cast<Lstm *>(lstm); }
void reset(void *lstm) { static_cast<Lstm *>(lstm)->reset(); }
void run(void *lstm, const float *x, float *y) { static_cast<Lstm *>(lstm)->run(x, y); }
}
