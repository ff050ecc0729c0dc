#include "cuda/host/unpack.h"

#include "cuda/host/device_stack.h"

namespace lstm_fastkernels {
namespace cuda {
namespace {

// How the layout for CUDA devices is read.
struct Reader {
  static constexpr int64_t kHeight = kBandHeight;

  template <class Visit>
  static void for_each_piece(const DeviceMatrix &m, const MatrixShape &shape, const Visit &visit) {
    if (m.arithmetic() == Arithmetic::float32)
      read_bands<float>(m, shape, visit);
    else
      read_bands<int8_t>(m, shape, visit);
  }

private:
  template <class Weight, class Visit>
  static void read_bands(const DeviceMatrix &m, const MatrixShape &shape, const Visit &visit) {
    const Arithmetic arithmetic = m.arithmetic();
    const int64_t width = columns_per_fragment(arithmetic);
    for (int64_t band = 0; band < shape.num_strips(kBandHeight); ++band)
      for (int64_t n = m.starts[band]; n < m.starts[band + 1]; ++n) {
        const uint8_t *const fragment = m.fragments + n * bytes_per_fragment(arithmetic);
        const int64_t first = m.columns[n] * width;
        for_each_strip(shape, band, [&](int64_t strip, int64_t half) {
          for (int64_t k = 0; k < std::min(width, shape.columns - first); k += kBlockColumns)
            visit(strip, first + k, [&](int64_t row, int64_t column) {
              return read<Weight>(
                  fragment + weight_byte(arithmetic, half * kStripRows + row, k + column), 0);
            });
        });
      }
  }
};

} // namespace

std::vector<UnpackedTensor> unpack(const void *packed, size_t bytes) {
  check_packed(packed, bytes, packed, bytes);
  const PackedStack stack(packed, bytes, packed, bytes);
  return unpack_stack<Reader>(stack.shape, stack.layers);
}

} // namespace cuda
} // namespace lstm_fastkernels
