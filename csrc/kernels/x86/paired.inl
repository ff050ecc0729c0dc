// Block-sparse products of several rows of activations, two in a register of 512 bits: the 4 bytes
// of the one and of the other, side by side, are broadcast against weights whose rows stand twice.
//
//   activations   a0 a1 | a0 a1 | ... | a0 a1      4 bytes each, of a block's columns
//   weights       w0 w0 | w1 w1 | ... | w7 w7      of its rows
//
// Cost of a block and 2 rows: 1 broadcast, 1 vpdpbusd; of the block: its column, 1 load, 1 vpermd.
// Included inside a target region, after products.inl; everything here has internal linkage.

namespace lstm_fastkernels {
namespace LFK_ISA {
namespace {

// The rows of activations by pairs: 4 bytes of the one, 4 of the other. The last one stands twice
// where their number is odd.
template <Arithmetic F, int R> class PairedRows {
public:
  static constexpr int kPairs = (R + 1) / 2;

  PairedRows(const Matrix &m, const Rows<F, R> &rows)
      : groups_(round_up(m.groups, kBlockColumns / columns_per_group(F))),
        stride_(round_up(groups_, 8) * 8), data_(rows.scratch) {
    for (int pair = 0; pair < kPairs; ++pair) {
      const uint8_t *const first = rows.q + 2 * pair * rows.stride;
      const uint8_t *const second = 2 * pair + 1 < R ? first + rows.stride : first;
      uint8_t *const to = data_ + pair * stride_;
      int64_t group = 0;
      for (; group + 8 <= groups_; group += 8)
        interleave(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(first + group * 4)),
                   _mm256_loadu_si256(reinterpret_cast<const __m256i *>(second + group * 4)),
                   to + group * 8);
      for (; group < groups_; ++group) {
        std::memcpy(to + group * 8, first + group * 4, 4);
        std::memcpy(to + group * 8 + 4, second + group * 4, 4);
      }
    }
  }

  const uint8_t *data() const { return data_; }
  int64_t stride() const { return stride_; }

private:
  static LFK_INLINE void interleave(__m256i first, __m256i second, uint8_t *to) {
    const __m512i order = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    _mm512_storeu_si512(to, _mm512_permutex2var_epi32(_mm512_castsi256_si512(first), order,
                                                      _mm512_castsi256_si512(second)));
  }

  int64_t groups_, stride_; // groups of whole blocks
  uint8_t *data_;
};

LFK_INLINE __m512i twice(__m256i rows) {
  const __m512i order = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  return _mm512_permutexvar_epi32(order, _mm512_castsi256_si512(rows));
}

// As strip_products.
template <Arithmetic F, int L, int R>
LFK_INLINE void paired_strip_products(const Matrix &m, const Slice &slice, int first,
                                      int64_t window_row, const Rows<F, R> &rows,
                                      const PairedRows<F, R> &paired) {
  constexpr int kPairs = PairedRows<F, R>::kPairs;
  constexpr int kGroups = kBlockColumns / columns_per_group(F);
  constexpr int kGroupBytes = block_bytes(F) / kGroups;
  __m512i sums[L][kPairs];
  LFK_UNROLLED (l, L) {
    const int64_t row = window_row + slice.strips[first + l] * kStripRows;
    __m512i row_sums = _mm512_setzero_si512();
    if constexpr (has_zero_points(F))
      row_sums = twice(StripDot::row_sums(m, row));
    LFK_UNROLLED (p, kPairs) {
      const int32_t z0 = -rows.zero_points[2 * p];
      const int32_t z1 = -rows.zero_points[2 * p + 1 < R ? 2 * p + 1 : 2 * p];
      sums[l][p] = row_sums;
      if constexpr (has_zero_points(F))
        sums[l][p] = _mm512_mullo_epi32(
            row_sums, _mm512_set1_epi64(static_cast<int64_t>(
                          uint64_t{static_cast<uint32_t>(z1)} << 32 | static_cast<uint32_t>(z0))));
    }
  }
  const int64_t slot = int64_t{slice.start} * kSliceStrips + first;
  const uint8_t *column = m.columns + slot * 2;
  const uint8_t *w = m.blocks + slot * block_bytes(F);
  for (uint32_t n = slice.length; n > 0; --n) {
    LFK_UNROLLED (l, L) {
      const uint8_t *q = paired.data() + int64_t{read<uint16_t>(column, l)} * (kGroups * 8);
      LFK_UNROLLED (g, kGroups) {
        const __m512i weights =
            twice(StripDot::weights<F>(w + l * block_bytes(F) + g * kGroupBytes));
        LFK_UNROLLED (p, kPairs)
          sums[l][p] = Dot::add<F>(
              sums[l][p], _mm512_set1_epi64(read<int64_t>(q + p * paired.stride(), g)), weights);
      }
    }
    column += kSliceStrips * 2;
    w += kSliceStrips * block_bytes(F);
  }
  LFK_UNROLLED (l, L) {
    LFK_UNROLLED (r, R) {
      const __m512i of_row = r % 2 ? _mm512_srli_epi64(sums[l][r / 2], 32) : sums[l][r / 2];
      rows.put(r, slice.strips[first + l] * kStripRows,
               StripDot::values<F>(_mm512_cvtepi64_epi32(of_row)));
    }
  }
}

template <Arithmetic F> struct PairedMatrix {
  static constexpr Arithmetic kArithmetic = F;
  static constexpr int kMaxRows = kMostRelaidRows;

  template <int R>
  static LFK_INLINE void run(const Matrix &m, int64_t first, int64_t tiles,
                             const Rows<F, R> &rows) {
    if constexpr (R == 1) {
      SparseMatrix<F>::template run<1>(m, first, tiles, rows);
    } else {
      const PairedRows<F, R> paired(m, rows);
      for_each_slice<4>(m, first, tiles, [&](const Slice &slice, int strip) LFK_ALWAYS_INLINE {
        paired_strip_products<F, 4, R>(m, slice, strip, first * kTileRows, rows, paired);
      });
    }
  }
};

} // namespace
} // namespace LFK_ISA
} // namespace lstm_fastkernels
