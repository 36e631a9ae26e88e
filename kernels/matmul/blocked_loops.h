// Included once per instruction set with MOBA_ISA naming the namespace.
#include <utility>

#include "kernels/common/simd.h"
#include "kernels/matmul/blocked_table.h"

namespace moba::kernels::MOBA_ISA {
namespace {

using V = Simd<kNativeVectorBytes>;
constexpr int kLanes = V::kLanes;
constexpr int kVectors = 2;  // per row of the register tile
constexpr int kCols = kVectors * kLanes;
constexpr int kRows = kNativeVectorBytes == 64 ? 14 : 6;  // accumulators, two vectors of B and a broadcast fill 32 or 16 registers

constexpr bool kReadsInPlace = kRows <= 8;  // the addresses of more rows, a distance apart that is not known here, overflow the registers

// One register tile over the whole depth; sums[r * kCols + col].
template <bool kInRows>
[[gnu::always_inline]] inline void multiply(int64_t depth, const float* a, int64_t a_row, const float* b, V::F (&sums)[kRows][kVectors]) {
  MOBA_UNROLL
  for (int r = 0; r < kRows; ++r) sums[r][0] = sums[r][1] = V::zero();
#pragma GCC unroll 4  // 23 instructions for 12 multiply-adds otherwise: too many where a neighbour shares the core
  for (int64_t k = 0; k < depth; ++k, b += kCols) {
    const V::F b0 = V::load(b), b1 = V::load(b + kLanes);
    MOBA_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const V::F x = V::splat(kInRows ? a[r * (kReadsInPlace ? a_row : kPackedRow) + k] : a[k * kRows + r]);
      sums[r][0] = V::fma(x, b0, sums[r][0]);
      sums[r][1] = V::fma(x, b1, sums[r][1]);
    }
  }
}

template <int kCount>
[[gnu::always_inline]] inline void write(const V::F (&sums)[kCount][kVectors], float alpha, float beta, float* c, int64_t ldc) {
  MOBA_UNROLL
  for (int r = 0; r < kCount; ++r) {
    MOBA_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      float* at = c + r * ldc + v * kLanes;
      V::F scaled = V::splat(alpha) * sums[r][v];
      asm("" : "+v"(scaled));  // rounded here, never contracted into the sum below: the same bits wherever this is inlined
      V::store(at, beta == 0 ? scaled : V::splat(beta) * V::load(at) + scaled);
    }
  }
}

[[gnu::always_inline]] inline void copy_block(int64_t rows, int64_t cols, const float* from, int64_t from_ld, float* to, int64_t to_ld) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < cols; ++j) to[r * to_ld + j] = from[r * from_ld + j];
}

template <bool kInRows>
void tile_as(const BlockedTile& t) {
  for (int64_t j = 0; j < t.cols; j += kCols) {
    const float* b = t.b + j / kCols * t.b_panel;
    for (int64_t i = 0; i < t.rows; i += kRows) {
      float* c = t.c + i * t.ldc + j;
      const int64_t rows = t.rows - i < kRows ? t.rows - i : kRows, cols = t.cols - j < kCols ? t.cols - j : kCols;
      for (int64_t r = 0; r < rows; ++r) __builtin_prefetch(c + r * t.ldc, 1);
      V::F sums[kRows][kVectors];
      multiply<kInRows>(t.depth, t.a + i / kRows * t.a_group, t.a_row, b, sums);
      // Border tiles go through a full one beside C: one piece of code, so an element's bits do not depend on its place.
      const bool whole = rows == kRows && cols == kCols;
      float border[kRows * kCols];
      if (!whole && t.beta != 0) copy_block(rows, cols, c, t.ldc, border, kCols);
      write(sums, t.alpha, t.beta, whole ? c : border, whole ? t.ldc : kCols);
      if (!whole) copy_block(rows, cols, border, kCols, c, t.ldc);
    }
  }
}

void tile(const BlockedTile& t) {
  if (t.a_in_rows) return tile_as<true>(t);
  tile_as<false>(t);
}

template <class T>
[[gnu::always_inline]] inline float value(T x) {
  return to_float(x);
}

template <class T>
[[gnu::always_inline]] inline void copy(int64_t n, const T* from, float* to) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) V::store(to + i, V::load(from + i));
  for (; i < n; ++i) to[i] = value(from[i]);
}

// Rows past the end of A are read by the register tile but never written to C.
template <class T>
void a_rows(int64_t rows, int64_t depth, const T* a, int64_t lda, float* groups) {
  for (int64_t r = 0; r < rows; ++r) copy(depth, a + r * lda, groups + r * kPackedRow);
  for (int64_t r = rows; r % kRows != 0; ++r)
    for (int64_t k = 0; k < depth; ++k) groups[r * kPackedRow + k] = 0;
}

template <class T>
void a_columns(int64_t rows, int64_t depth, const T* a, int64_t lda, float* groups) {
  constexpr int64_t kGroup = kRows * kPackedRow;
  const int64_t whole = rows / kRows * kRows, left = rows - whole;
  for (int64_t k = 0; k < depth; ++k, a += lda, groups += kRows) {
    float* to = groups;
    // Whole vectors, up to two lanes too many: they read on into the row of the next k, and what they write past the group's values is
    // overwritten by it.
    if (k + 1 < depth) {
      for (int64_t r = 0; r < whole; r += kRows, to += kGroup) {
        MOBA_UNROLL
        for (int64_t i = 0; i < kRows; i += kLanes) V::store(to + i, V::load(a + r + i));
      }
    } else {
      for (int64_t r = 0; r < whole; r += kRows, to += kGroup)
        for (int64_t i = 0; i < kRows; ++i) to[i] = value(a[r + i]);
    }
    for (int64_t i = 0; left > 0 && i < kRows; ++i) to[i] = i < left ? value(a[whole + i]) : 0.0f;
  }
}

template <class T>
void b_rows(int64_t depth, int64_t cols, const T* b, int64_t ldb, float* panel) {
  for (int64_t k = 0; k < depth; ++k, b += ldb, panel += kCols) {
    if (cols == kCols) {
      V::store(panel, V::load(b));
      V::store(panel + kLanes, V::load(b + kLanes));
    } else {
      for (int64_t j = 0; j < kCols; ++j) panel[j] = j < cols ? value(b[j]) : 0.0f;
    }
  }
}

// Transposes in strips of k short enough that the lines of all columns stay in L1.
template <class T>
void b_columns(int64_t depth, int64_t cols, const T* b, int64_t ldb, float* panel) {
  constexpr int64_t kStrip = 16;
  const int64_t whole_depth = cols == kCols ? depth / kStrip * kStrip : 0;
  for (int64_t begin = 0; begin < whole_depth; begin += kStrip)
    for (int64_t j = 0; j < kCols; j += 4)
      for (int64_t k = begin; k < begin + kStrip; k += 4) {
        using Q = Simd<16>;
        const T* from = b + j * ldb + k;
        store_transposed(Q::load(from), Q::load(from + ldb), Q::load(from + 2 * ldb), Q::load(from + 3 * ldb), panel + k * kCols + j,
                         kCols);
      }
  for (int64_t j = 0; j < kCols; ++j)
    for (int64_t k = whole_depth; k < depth; ++k) panel[k * kCols + j] = j < cols ? value(b[j * ldb + k]) : 0.0f;
}

// Lists of lanes for shuffles.
template <int... kLane>
using Lanes = std::integer_sequence<int, kLane...>;
template <int kCount>
using AllLanes = std::make_integer_sequence<int, kCount>;

template <int... kLane, class F>
[[gnu::always_inline]] inline auto join(F low, F high, Lanes<kLane...>) {
  return __builtin_shufflevector(low, high, kLane...);
}

// 16 bytes of each of the columns 0, 4, 8, .. below kCount, one column's beside the next's; ld in bytes.
template <int kCount>
[[gnu::always_inline]] inline auto quads(const char* from, int64_t ld) {
  if constexpr (kCount == 4) {
    Simd<16>::F v;
    __builtin_memcpy(&v, from, 16);
    return v;
  } else {
    return join(quads<kCount / 2>(from, ld), quads<kCount / 2>(from + kCount / 2 * ld, ld), AllLanes<kCount>());
  }
}

// In each quarter of a vector: its lanes x0 y0 x1 y1, or with kHigh x2 y2 x3 y3; pairs: x0 x1 y0 y1, or x2 x3 y2 y3.
template <bool kHigh, int... kLane>
[[gnu::always_inline]] inline V::F interleave(V::F x, V::F y, Lanes<kLane...>) {
  return __builtin_shufflevector(x, y, (kLane / 4 * 4 + kLane % 4 / 2 + 2 * kHigh + kLane % 2 * kLanes)...);
}
template <bool kHigh, int... kLane>
[[gnu::always_inline]] inline V::F interleave_pairs(V::F x, V::F y, Lanes<kLane...>) {
  return __builtin_shufflevector(x, y, (kLane / 4 * 4 + kLane % 2 + 2 * kHigh + kLane % 4 / 2 * kLanes)...);
}

// 16 bytes of each of kLanes columns, transposed as 32-bit words: v[word] holds one word of every column.
[[gnu::always_inline]] inline void transpose_words(const char* from, int64_t ld, V::F (&v)[4]) {
  constexpr AllLanes<kLanes> lanes;
  const V::F a = quads<kLanes>(from, ld), b = quads<kLanes>(from + ld, ld), c = quads<kLanes>(from + 2 * ld, ld),
             d = quads<kLanes>(from + 3 * ld, ld);
  const V::F ab = interleave<false>(a, b, lanes), ab2 = interleave<true>(a, b, lanes);
  const V::F cd = interleave<false>(c, d, lanes), cd2 = interleave<true>(c, d, lanes);
  v[0] = interleave_pairs<false>(ab, cd, lanes);
  v[1] = interleave_pairs<true>(ab, cd, lanes);
  v[2] = interleave_pairs<false>(ab2, cd2, lanes);
  v[3] = interleave_pairs<true>(ab2, cd2, lanes);
}

// Values of one k out of transposed words: a word is one float, or two bf16 with the smaller k in its low half.
[[gnu::always_inline]] inline V::F word_values(const V::F (&v)[4], int k, float) { return v[k]; }
[[gnu::always_inline]] inline V::F word_values(const V::F (&v)[4], int k, bf16) {
  const V::U words = (V::U)v[k / 2];
  return (V::F)(k % 2 ? words & 0xffff0000u : words << 16);
}

// The sums of `multiply` for one row. Half a cache line of each column at a time: columns a power of two apart share few sets of
// L1, so a line must be used up soon, and longer runs would leave each of the two chains of sums waiting for itself.
template <class T>
void row(const BlockedRow<T>& t) {
  constexpr int kStep = 16 / sizeof(T), kRun = 2 * kStep;
  const int64_t column_bytes = t.ldb * static_cast<int64_t>(sizeof(T)), whole_depth = t.depth / kRun * kRun;
  for (int64_t j = 0; j < t.cols; j += kCols) {
    const T* b = t.b + j * t.ldb;
    V::F sums[1][kVectors] = {};
    for (int64_t begin = 0; begin < whole_depth; begin += kRun) {
      MOBA_UNROLL
      for (int i = 0; i < kVectors; ++i) {
        MOBA_UNROLL
        for (int step = 0; step < kRun; step += kStep) {
          V::F words[4];
          transpose_words(reinterpret_cast<const char*>(b + i * kLanes * t.ldb + begin + step), column_bytes, words);
          MOBA_UNROLL
          for (int k = 0; k < kStep; ++k) sums[0][i] = V::fma(V::splat(t.a[begin + step + k]), word_values(words, k, T()), sums[0][i]);
        }
      }
    }
    for (int64_t k = whole_depth; k < t.depth; ++k)
      for (int i = 0; i < kVectors; ++i) {
        float values[kLanes];
        for (int lane = 0; lane < kLanes; ++lane) values[lane] = value(b[(i * kLanes + lane) * t.ldb + k]);
        sums[0][i] = V::fma(V::splat(t.a[k]), V::load(values), sums[0][i]);
      }
    write(sums, t.alpha, t.beta, t.c + j, 0);
  }
}

}  // namespace

extern const BlockedLoops blocked_loops = {kRows,
                                           kCols,
                                           kReadsInPlace,
                                           tile,
                                           {a_rows<float>, a_columns<float>, b_rows<float>, b_columns<float>, row<float>},
                                           {a_rows<bf16>, a_columns<bf16>, b_rows<bf16>, b_columns<bf16>, row<bf16>}};

}  // namespace moba::kernels::MOBA_ISA
