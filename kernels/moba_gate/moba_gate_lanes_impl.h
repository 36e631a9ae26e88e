// Body of moba_gate_{sse,avx2,avx512}.cpp, a template over the vector width. All of it has internal linkage, so no code of
// one instruction set can stand in for another's.
#pragma once
#include "kernels/common/simd.h"
#include "kernels/moba_gate/moba_gate_lanes.h"

namespace moba::kernels {
namespace {

constexpr int64_t kSumPiece = 64;  // keys added up before they join the total: keeps the fp32 error of long blocks small

// kBytes: vector width. kPanel: broadcast summaries per pass; 2 * kPanel accumulators + 3 must fit the registers.
template <int kBytes, int kPanel>
struct Gate32 {
  using V = Simd<kBytes>;
  using F = typename V::F;
  using I = typename V::I;
  static constexpr int kVector = V::kLanes;
  static constexpr int kLanes = 2 * kVector;

  MOBA_INLINE bool any(I mask) {
#ifdef __AVX512F__
    if constexpr (kBytes == 64) return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#endif
#ifdef __AVX2__
    if constexpr (kBytes == 32) return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#endif
    if constexpr (kBytes == 16) return _mm_movemask_epi8((__m128i)mask) != 0;
    int32_t all = 0;
    for (int i = 0; i < kVector; ++i) all |= mask[i];
    return all != 0;
  }
  MOBA_INLINE I load_int(const int32_t* p) {
    I v;
    __builtin_memcpy(&v, p, kBytes);
    return v;
  }
  MOBA_INLINE void store_int(int32_t* p, I v) { __builtin_memcpy(p, &v, kBytes); }
  MOBA_INLINE I choose(I mask, I yes, I no) { return (mask & yes) | (~mask & no); }

  // Scores of summaries [first, first + count) of one panel for both vectors of queries, to out [count, kLanes].
  template <bool kBounds, int kCount>
  static void score(const GateTile& tile, const float* low, const float* high, float* out) {
    F sum[kCount][2];
    MOBA_UNROLL for (int i = 0; i < kCount; ++i) sum[i][0] = sum[i][1] = V::zero();
    const float* q = tile.queries;
    for (int64_t h = 0; h < tile.heads; ++h) {
      for (int64_t d = 0; d < tile.head_dim; ++d, q += kLanes) {
        const F q0 = V::load(q), q1 = V::load(q + kVector);
        MOBA_UNROLL for (int i = 0; i < kCount; ++i) {
          const F a = V::splat(low[d * kPanel + i]);
          if constexpr (kBounds) {
            const F b = V::splat(high[d * kPanel + i]);
            sum[i][0] += V::max(q0 * a, q0 * b);
            sum[i][1] += V::max(q1 * a, q1 * b);
          } else {
            sum[i][0] = V::fma(a, q0, sum[i][0]);
            sum[i][1] = V::fma(a, q1, sum[i][1]);
          }
        }
      }
    }
    MOBA_UNROLL for (int i = 0; i < kCount; ++i) {
      V::store(out + i * kLanes, sum[i][0]);
      V::store(out + i * kLanes + kVector, sum[i][1]);
    }
  }

  static void score_panel(const GateTile& tile, int64_t panel, float* out) {
    const int64_t at = panel * tile.head_dim * kPanel;
    if (tile.high == nullptr) return score<false, kPanel>(tile, tile.low + at, nullptr, out);
    constexpr int kHalf = kPanel / 2;  // bounds take two broadcasts and two products each
    score<true, kHalf>(tile, tile.low + at, tile.high + at, out);
    score<true, kHalf>(tile, tile.low + at + kHalf, tile.high + at + kHalf, out + kHalf * kLanes);
  }

  // Inserts one block into the sorted lists of a vector of queries. `>=`: the later block wins a tie, and NaN never enters.
  MOBA_INLINE void insert(F x, int32_t block, I own, int64_t keep, float* best, int32_t* best_block) {
    const I candidate = ((I{} + block) < own) & (I)(x >= V::load(best + (keep - 1) * kLanes));
    if (!any(candidate)) return;
    I index = I{} + block;
    I moving = candidate;  // lanes that still carry something to put in
    for (int64_t j = 0; j < keep; ++j) {
      const F old = V::load(best + j * kLanes);
      const I old_index = load_int(best_block + j * kLanes);
      const I wins = moving & (I)(x >= old);
      V::store(best + j * kLanes, V::select(wins, x, old));
      store_int(best_block + j * kLanes, choose(wins, index, old_index));
      x = V::select(wins, old, x);
      index = choose(wins, old_index, index);
    }
  }

  static void run_tile(const GateTile& tile) {
    const int64_t panels = (tile.blocks + kPanel - 1) / kPanel;
    if (tile.scores != nullptr) {
      for (int64_t panel = 0; panel < panels; ++panel) score_panel(tile, panel, tile.scores + panel * kPanel * kLanes);
      return;
    }
    for (int64_t i = 0; i < tile.keep * kLanes; ++i) tile.best[i] = -__builtin_inff(), tile.best_block[i] = -1;
    const I own0 = load_int(tile.own), own1 = load_int(tile.own + kVector);
    float scores[kPanel * kLanes];
    for (int64_t panel = 0; panel < panels; ++panel) {
      score_panel(tile, panel, scores);
      const int64_t first = panel * kPanel, count = tile.blocks - first < kPanel ? tile.blocks - first : kPanel;
      for (int64_t i = 0; i < count; ++i) {
        const auto block = static_cast<int32_t>(first + i);
        insert(V::load(scores + i * kLanes), block, own0, tile.keep, tile.best, tile.best_block);
        insert(V::load(scores + i * kLanes + kVector), block, own1, tile.keep, tile.best + kVector, tile.best_block + kVector);
      }
    }
  }

  // kVector vectors of kVector lanes, rows to columns: swap blocks of 1, 2, 4, .. lanes between rows that far apart.
  template <int kStep>
  MOBA_INLINE void transpose(F (&rows)[kVector]) {
    I low, high;
    MOBA_UNROLL for (int i = 0; i < kVector; ++i) {
      low[i] = (i & kStep) ? kVector + i - kStep : i;
      high[i] = (i & kStep) ? kVector + i : i + kStep;
    }
    MOBA_UNROLL for (int i = 0; i < kVector; ++i) {
      if (i & kStep) continue;
      const F a = rows[i], b = rows[i + kStep];
      rows[i] = __builtin_shuffle(a, b, low);
      rows[i + kStep] = __builtin_shuffle(a, b, high);
    }
    if constexpr (2 * kStep < kVector) transpose<2 * kStep>(rows);
  }

  template <class T>
  static void load_queries(const T* rows, int64_t stride, int64_t count, int64_t D, float* out) {
    for (int half = 0; half < 2; ++half) {
      for (int64_t d = 0; d < D; d += kVector) {
        const int width = D - d < kVector ? static_cast<int>(D - d) : kVector;
        F block[kVector];
        MOBA_UNROLL for (int i = 0; i < kVector; ++i) {
          const int64_t row = half * kVector + i < count ? half * kVector + i : count - 1;
          block[i] = width == kVector ? V::load(rows + row * stride + d) : V::load_partial(rows + row * stride + d, width);
        }
        transpose<1>(block);
        MOBA_UNROLL for (int i = 0; i < kVector; ++i) if (i < width) V::store(out + (d + i) * kLanes + half * kVector, block[i]);
      }
    }
  }

  template <class T>
  MOBA_INLINE F load_columns(const T* p, int64_t left) {
    return left >= kVector ? V::load(p) : V::load_partial(p, static_cast<int>(left));
  }
  MOBA_INLINE void store_columns(float* p, F v, int64_t left) {
    if (left >= kVector)
      V::store(p, v);
    else
      V::store_partial(p, v, static_cast<int>(left));
  }

  template <class T>
  static void mean(const T* rows, int64_t count, int64_t width, float* out) {
    for (int64_t c = 0; c < width; c += kVector) {
      F total = V::zero();
      for (int64_t begin = 0; begin < count; begin += kSumPiece) {
        const int64_t end = begin + kSumPiece < count ? begin + kSumPiece : count;
        F sum = V::zero();
        for (int64_t t = begin; t < end; ++t) sum += load_columns(rows + t * width + c, width - c);
        total += sum;
      }
      store_columns(out + c, total / V::splat(static_cast<float>(count)), width - c);
    }
  }

  // A NaN among the keys makes both bounds NaN, so that the block is no candidate.
  template <class T>
  static void bounds(const T* rows, int64_t count, int64_t width, float* low, float* high) {
    for (int64_t c = 0; c < width; c += kVector) {
      F smallest = V::splat(__builtin_inff()), largest = V::splat(-__builtin_inff());
      I nan = I{};
      for (int64_t t = 0; t < count; ++t) {
        const F x = load_columns(rows + t * width + c, width - c);
        nan |= (I)(x != x);
        smallest = V::min(x, smallest);
        largest = V::max(x, largest);
      }
      store_columns(low + c, V::select(nan, V::splat(__builtin_nanf("")), smallest), width - c);
      store_columns(high + c, V::select(nan, V::splat(__builtin_nanf("")), largest), width - c);
    }
  }

  static float log2_mass(int64_t n, const float* scores, float unit) {
    const F none = V::splat(-__builtin_inff());
    auto load = [&](int64_t i) __attribute__((always_inline)) {
      if (n - i >= kVector) return V::load(scores + i);
      F x = none;
      for (int64_t j = i; j < n; ++j) x[j - i] = scores[j];
      return x;
    };
    F largest = none;
    I nan = I{};
    for (int64_t i = 0; i < n; i += kVector) {
      const F x = load(i);
      nan |= (I)(x != x);
      largest = V::max(x, largest);
    }
    if (any(nan)) return __builtin_nanf("");
    const float shift = V::reduce_max(largest) * unit;
    if (__builtin_isinf(shift)) return shift;
    F sum = V::zero();
    for (int64_t i = 0; i < n; i += kVector) sum += V::exp2(V::fma(load(i), V::splat(unit), V::splat(-shift)));
    return shift + __builtin_log2f(V::sum(sum));
  }

  static constexpr GateLoops kLoops = {kLanes,      kPanel,     run_tile,      load_queries<float>, load_queries<bf16>,
                                       mean<float>, mean<bf16>, bounds<float>, bounds<bf16>,        log2_mass};
};

}  // namespace
}  // namespace moba::kernels
