// Which products a matrix takes. BlockMatrix<arithmetic>, which the including file names, are those
// of block-sparse ones. Included inside a target region, after products.inl; everything here has
// internal linkage.

namespace lstm_fastkernels {
namespace LFK_ISA {
namespace {

template <Arithmetic F>
void multiply(const Matrix &m, int64_t first, int64_t tiles, const ActivationRows &x, int64_t rows,
              const Target &target) {
  if (m.is_sparse())
    tiles_times_rows<BlockMatrix<F>>(m, first, tiles, x, rows, target);
  else
    tiles_times_rows<DenseMatrix<F>>(m, first, tiles, x, rows, target);
}

// Tiles first..first + tiles - 1 times all rows of x.
void multiply(const Matrix &m, int64_t first, int64_t tiles, const ActivationRows &x, int64_t rows,
              const Target &target) {
  switch (m.arithmetic) {
  case Arithmetic::pairs8:
    return multiply<Dot::kPairs8>(m, first, tiles, x, rows, target);
  case Arithmetic::any8:
    return multiply<Arithmetic::any8>(m, first, tiles, x, rows, target);
  case Arithmetic::signed16:
    return multiply<Arithmetic::signed16>(m, first, tiles, x, rows, target);
  case Arithmetic::float32:
    return multiply<Arithmetic::float32>(m, first, tiles, x, rows, target);
  case Arithmetic::int4:
    return tiles_times_rows<Int4Matrix>(m, first, tiles, x, rows, target);
  }
}

} // namespace
} // namespace LFK_ISA
} // namespace lstm_fastkernels
