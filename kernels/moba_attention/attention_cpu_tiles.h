// The register tile shared by every product of CPU attention, and the packing of its operands.
//
//   C[R <= 6 rows][columns] (+)= A[row][k] * B[k][columns]      A: one broadcast word per row and k; B: packed, columns adjacent
//
// 6 rows x NV vectors: with AVX2 12 accumulators + 2 of B + 1 of A of 16 registers, with AVX-512 24 + 4 + 1 of 32; both cover the
// multiply-add latency (4 x 2). Each element of C is one sequential sum over k, whatever the number of rows: bits of a row do not
// depend on its neighbours.
#pragma once
#include "kernels/common/simd.h"
#include "kernels/moba_attention/attention_cpu_kernels.h"

namespace moba::kernels::attention_cpu {

// fp32 words.
template <int Bytes, int Vectors>
struct Fp32Geometry {
  using V = Simd<Bytes>;
  static constexpr int kVectors = Vectors, kColumns = Vectors * V::kLanes, kPair = 1;
  MOBA_INLINE typename V::F broadcast(const float* a) { return V::splat(*a); }
  MOBA_INLINE typename V::F mac(typename V::F c, typename V::F a, typename V::F b) { return V::fma(a, b, c); }
  MOBA_INLINE typename V::F exp2(typename V::F y) { return V::exp2_to_127(y); }
};

// Words of two bf16: c += a.hi * b.hi, then c += a.lo * b.lo, the order of vdpbf16ps; in plain vectors where that is missing.
template <int Bytes, int Vectors>
struct PairGeometry {
  using V = Simd<Bytes>;
  static constexpr int kVectors = Vectors, kColumns = Vectors * V::kLanes, kPair = 2;
  MOBA_INLINE typename V::F broadcast(const float* a) {
    int32_t bits;
    __builtin_memcpy(&bits, a, 4);
    return (typename V::F)(typename V::I{} + bits);
  }
  MOBA_INLINE typename V::F mac(typename V::F c, typename V::F a, typename V::F b) {
#ifdef __AVX512BF16__
    if constexpr (Bytes == 64) return (typename V::F)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b);
#endif
    using F = typename V::F;
    using U = typename V::U;
    c = V::fma((F)((U)a & 0xffff0000u), (F)((U)b & 0xffff0000u), c);
    return V::fma((F)((U)a << 16), (F)((U)b << 16), c);
  }
  MOBA_INLINE typename V::F exp2(typename V::F y) { return V::exp2_short(y); }
};

// How C starts.
enum class Start { zero, load, scale };

constexpr int kMaxRows = 6;

// Rows of A are lda words apart, steps of k are step words apart; rows of B are ldb words apart; c[r] points at row r's columns.
template <class G, int R, Start S>
[[gnu::noinline]] static void register_tile(const float* a, int64_t lda, int64_t step, const float* b, int64_t ldb, int64_t k_count,
                                            float* const* c, const float* factor) {
  using V = typename G::V;
  if (k_count <= 0) __builtin_unreachable();  // else accumulators are kept twice, for the loop and for what follows it
  typename V::F acc[R][G::kVectors];
  MOBA_UNROLL
  for (int r = 0; r < R; ++r) {
    MOBA_UNROLL
    for (int j = 0; j < G::kVectors; ++j) {
      if constexpr (S == Start::zero) acc[r][j] = V::zero();
      if constexpr (S == Start::load) acc[r][j] = V::load(c[r] + j * V::kLanes);
      if constexpr (S == Start::scale) acc[r][j] = V::load(c[r] + j * V::kLanes) * V::splat(factor[r]);
    }
  }
#pragma GCC unroll 4
  for (int64_t k = 0; k < k_count; ++k) {
    typename V::F column[G::kVectors];
    MOBA_UNROLL
    for (int j = 0; j < G::kVectors; ++j) column[j] = V::load(b + k * ldb + j * V::kLanes);
    MOBA_UNROLL
    for (int r = 0; r < R; ++r) {
      const typename V::F x = G::broadcast(a + r * lda + k * step);
      MOBA_UNROLL
      for (int j = 0; j < G::kVectors; ++j) acc[r][j] = G::mac(acc[r][j], x, column[j]);
    }
  }
  MOBA_UNROLL
  for (int r = 0; r < R; ++r) {
    MOBA_UNROLL
    for (int j = 0; j < G::kVectors; ++j) V::store(c[r] + j * V::kLanes, acc[r][j]);
  }
}

// One register tile of `rows` <= kMaxRows rows; nothing where there is nothing to sum (rows without keys have factor 1).
template <class G, Start S>
MOBA_INLINE void row_group(int rows, const float* a, int64_t lda, int64_t step, const float* b, int64_t ldb, int64_t k_count,
                           float* const* c, const float* factor = nullptr) {
  if (k_count == 0) return;
  switch (rows) {
    case 6: return register_tile<G, 6, S>(a, lda, step, b, ldb, k_count, c, factor);
    case 5: return register_tile<G, 5, S>(a, lda, step, b, ldb, k_count, c, factor);
    case 4: return register_tile<G, 4, S>(a, lda, step, b, ldb, k_count, c, factor);
    case 3: return register_tile<G, 3, S>(a, lda, step, b, ldb, k_count, c, factor);
    case 2: return register_tile<G, 2, S>(a, lda, step, b, ldb, k_count, c, factor);
    default: return register_tile<G, 1, S>(a, lda, step, b, ldb, k_count, c, factor);
  }
}

// Cuts n rows into balanced groups of at most kMaxRows (4 to 6 from 10 rows up: smaller groups hide less latency).
template <class F>
MOBA_INLINE void for_row_groups(int n, F&& f) {
  const int groups = (n + kMaxRows - 1) / kMaxRows;
  for (int g = 0, first = 0; g < groups; ++g) {
    const int count = (n - first + groups - g - 1) / (groups - g);
    f(first, count);
    first += count;
  }
}

MOBA_INLINE int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }
MOBA_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
MOBA_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Sizes that follow from geometry and head dim.
template <class G>
struct Depth {
  int64_t d, words, padded;  // D; words of a row along D; D padded to whole register tiles
  MOBA_INLINE Depth of(int64_t d) { return {d, (d + G::kPair - 1) / G::kPair, round_up(d, G::kColumns)}; }
};

// Keys of panel p, padded to whole register tiles.
template <class G>
MOBA_INLINE int64_t padded_panel_keys(int64_t keys, int64_t panel) {
  return smaller(kPanelKeys, round_up(keys, G::kColumns) - panel * kPanelKeys);
}

// The word that holds one value (fp32) or the pair of bf16 (lo, hi).
MOBA_INLINE float pair_word(bf16 lo, bf16 hi) { return __builtin_bit_cast(float, uint32_t{lo.bits} | uint32_t{hi.bits} << 16); }

// Such words of kLanes columns of two rows.
template <class V>
MOBA_INLINE typename V::F pair_rows(const bf16* lo, const bf16* hi) {
  using U = typename V::U;
  return (typename V::F)((U)V::load(lo) >> 16 | (U)V::load(hi));
}

// Row of E [d] -> words along D; fp32 words are multiplied by factor, pairs are copied as they are.
template <class G, class E>
MOBA_INLINE void gather_row(const E* from, const Depth<G>& depth, float factor, float* to) {
  using V = typename G::V;
  if constexpr (G::kPair == 2) {
    to[depth.words - 1] = 0;  // odd D: the missing half
    __builtin_memcpy(to, from, static_cast<size_t>(depth.d) * sizeof(E));
  } else {
    int64_t d = 0;
    for (; d + V::kLanes <= depth.d; d += V::kLanes) V::store(to + d, V::load(from + d) * V::splat(factor));
    for (; d < depth.d; ++d) to[d] = to_float(from[d]) * factor;
  }
}

// Word w of a row.
template <class G, class E>
MOBA_INLINE float row_word(const E* row, int64_t w, int64_t d) {
  if constexpr (G::kPair == 2)
    return pair_word(row[2 * w], 2 * w + 1 < d ? row[2 * w + 1] : bf16{0});
  else
    return to_float(row[w]);
}
// Words w to w + 3.
template <class G, class E>
MOBA_INLINE Simd<16>::F row_words(const E* row, int64_t w) {
  if constexpr (G::kPair == 2)
    return Simd<16>::load(reinterpret_cast<const float*>(row + 2 * w));
  else
    return Simd<16>::load(row + w);
}

// Keys [first, first + count) of x -> [columns groups][depth words][columns], missing keys zero. `to` is the first group.
template <class G, class E>
static void pack_columns(const E* x, int64_t stride, int64_t count, int64_t padded, const Depth<G>& depth, float* to) {
  const int64_t fours = depth.d / (4 * G::kPair) * 4;  // words without a missing half, in fours
  for (int64_t g = 0; g < padded; g += G::kColumns, to += depth.words * G::kColumns) {
    for (int64_t c = 0; c < G::kColumns; c += 4) {
      const E* row = x + (g + c) * stride;
      int64_t begin = 0;
      if (g + c + 4 <= count) {
        for (; begin < fours; begin += 4)
          store_transposed(row_words<G>(row, begin), row_words<G>(row + stride, begin), row_words<G>(row + 2 * stride, begin),
                           row_words<G>(row + 3 * stride, begin), to + begin * G::kColumns + c, G::kColumns);
      }
      for (int64_t i = 0; i < 4; ++i, row += stride) {
        for (int64_t w = begin; w < depth.words; ++w) {
          const float word = g + c + i < count ? row_word<G>(row, w, depth.d) : 0.0f;
          __builtin_memcpy(to + w * G::kColumns + c + i, &word, 4);
        }
      }
    }
  }
}

// The same keys -> [Dp/columns][padded/pair][columns], missing keys and columns zero.
template <class G, class E>
static void pack_rows(const E* x, int64_t stride, int64_t count, int64_t padded, const Depth<G>& depth, float* to) {
  using V = typename G::V;
  for (int64_t g = 0; g < depth.padded; g += G::kColumns) {
    const int64_t columns = smaller(G::kColumns, depth.d - g);
    for (int64_t k = 0; k < padded; k += G::kPair, to += G::kColumns) {
      const E* row = x + k * stride + g;
      if (columns == G::kColumns && k + G::kPair <= count) {
        MOBA_UNROLL
        for (int64_t c = 0; c < G::kColumns; c += V::kLanes) {
          if constexpr (G::kPair == 2)
            V::store(to + c, pair_rows<V>(row + c, row + stride + c));
          else
            V::store(to + c, V::load(row + c));
        }
        continue;
      }
      for (int64_t c = 0; c < G::kColumns; ++c) {
        float word = 0;
        if constexpr (G::kPair == 2) {
          if (c < columns && k < count) word = pair_word(row[c], k + 1 < count ? row[stride + c] : bf16{0});
        } else {
          if (c < columns && k < count) word = to_float(row[c]);
        }
        __builtin_memcpy(to + c, &word, 4);
      }
    }
  }
}

// Sum of x * 0 over a row, lane by lane: 0, or NaN where the row holds NaN or Inf.
template <class V, class E>
MOBA_INLINE typename V::F poison(const E* row, int64_t d) {
  typename V::F sum = V::zero();
  int64_t i = 0;
  for (; i + V::kLanes <= d; i += V::kLanes) sum = sum + V::load(row + i) * V::zero();
  if (i < d) sum = sum + V::load_partial(row + i, static_cast<int>(d - i)) * V::zero();
  return sum;
}

template <class V, class E>
static bool has_nonfinite(const E* x, int64_t stride, int64_t count, int64_t d) {
  typename V::F sum = V::zero();
  for (int64_t k = 0; k < count; ++k) sum = sum + poison<V>(x + k * stride, d);
  return V::sum(sum) != 0;
}

template <class G, class E>
static void pack_panel(const PackJob& job) {
  using V = typename G::V;
  const auto depth = Depth<G>::of(job.head_dim);
  const int64_t first = job.panel * kPanelKeys;
  const int64_t count = smaller(kPanelKeys, job.keys - first), padded = padded_panel_keys<G>(job.keys, job.panel);
  const E* k = static_cast<const E*>(job.k) + first * job.token_stride;
  const E* v = static_cast<const E*>(job.v) + first * job.token_stride;
  const PackedHead& to = job.packed;
  const int64_t columns_at = first * depth.words, rows_at = first / G::kPair * depth.padded;
  pack_columns<G>(k, job.token_stride, count, padded, depth, to.k_columns + columns_at);
  pack_rows<G>(v, job.token_stride, count, padded, depth, to.v_rows + rows_at);
  if (job.backward) {
    pack_columns<G>(v, job.token_stride, count, padded, depth, to.v_columns + columns_at);
    pack_rows<G>(k, job.token_stride, count, padded, depth, to.k_rows + rows_at);
  }
  to.nonfinite[job.panel] =
      has_nonfinite<V>(k, job.token_stride, count, job.head_dim) || has_nonfinite<V>(v, job.token_stride, count, job.head_dim);
}

}  // namespace moba::kernels::attention_cpu
