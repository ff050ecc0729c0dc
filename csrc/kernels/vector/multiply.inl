// Which products a matrix takes. Included inside a target region, after products.inl and whatever
// products are the instruction set's own; everything here has internal linkage.

namespace lstm_fastkernels {
namespace LFK_ISA {
namespace {

template <Arithmetic F> struct PairedMatrix; // where StripDot::kPaired

template <Arithmetic F>
using BlockMatrix = std::conditional_t<StripDot::kPaired, PairedMatrix<F>, SparseMatrix<F>>;

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
  case Arithmetic::table32:
  case Arithmetic::table16: // looked up, not multiplied
    return;
  }
}

} // namespace
} // namespace LFK_ISA
} // namespace lstm_fastkernels
