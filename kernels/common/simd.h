// Portable vectors: one struct template over GCC vector extensions, Simd<16|32|64>, lanes of fp32.
//
// The instruction set is that of the file that includes this header (kernels/CMakeLists.txt: suffixes _sse, _avx2, _avx512,
// _avx512_bf16); a width the set lacks is lowered to narrower operations, so every width computes the same everywhere, only slower.
// All functions are always_inline: nothing here may become a symbol that a linker could share between instruction sets.
// Products followed by sums contract to FMA where the set has it (-ffp-contract=fast).
#pragma once
#include <immintrin.h>

#include "kernels/common/types.h"

#pragma GCC diagnostic ignored "-Wpsabi"  // for the rest of the file: wide vectors never cross a call, everything is inlined

#define MOBA_INLINE [[gnu::always_inline]] static inline

// g++ keeps accumulator arrays in registers only when every loop over them is unrolled completely.
#define MOBA_UNROLL _Pragma("GCC unroll 16")

namespace moba {

// Widest vector of the instruction set this file is compiled for.
#if defined(__AVX512F__)
constexpr int kNativeVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kNativeVectorBytes = 32;
#else
constexpr int kNativeVectorBytes = 16;
#endif

template <int Bytes>
struct VectorTypes;  // g++ 12 takes vector_size only with a plain number
#define MOBA_VECTOR_TYPES(BYTES, HALF)                      \
  template <>                                               \
  struct VectorTypes<BYTES> {                               \
    typedef float F __attribute__((vector_size(BYTES)));    \
    typedef int32_t I __attribute__((vector_size(BYTES)));  \
    typedef uint32_t U __attribute__((vector_size(BYTES))); \
    typedef uint16_t H __attribute__((vector_size(HALF)));  \
  }
MOBA_VECTOR_TYPES(16, 8);
MOBA_VECTOR_TYPES(32, 16);
MOBA_VECTOR_TYPES(64, 32);
#undef MOBA_VECTOR_TYPES

template <int Bytes>
struct Simd {
  static constexpr int kLanes = Bytes / 4;
  using F = typename VectorTypes<Bytes>::F;
  using I = typename VectorTypes<Bytes>::I;  // also the result of comparisons: -1 true, 0 false
  using U = typename VectorTypes<Bytes>::U;
  using H = typename VectorTypes<Bytes>::H;  // bf16 bits of kLanes values

  MOBA_INLINE F splat(float x) { return x - F{}; }
  MOBA_INLINE F zero() { return F{}; }
  MOBA_INLINE I iota() {
    I v;
    for (int i = 0; i < kLanes; ++i) v[i] = i;
    return v;
  }

  // ---- memory; no alignment needed
  MOBA_INLINE F load(const float* p) {
    F v;
    __builtin_memcpy(&v, p, Bytes);
    return v;
  }
  MOBA_INLINE void store(float* p, F v) { __builtin_memcpy(p, &v, Bytes); }
  MOBA_INLINE F load(const bf16* p) {
    H h;
    __builtin_memcpy(&h, p, Bytes / 2);
    return (F)(__builtin_convertvector(h, U) << 16);
  }
  MOBA_INLINE void store(bf16* p, F v) {  // round to nearest, ties to even; NaN stays NaN
    const U u = (U)v;
    const U rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    const U quiet = (u >> 16) | 0x40u;
    const H h = __builtin_convertvector((U)select((I)(v != v), (F)quiet, (F)rounded), H);
    __builtin_memcpy(p, &h, Bytes / 2);
  }
  // First n lanes, 0 <= n <= kLanes; the other lanes read as zero and are not written.
  template <class T>
  MOBA_INLINE F load_partial(const T* p, int n) {
    T lanes[kLanes] = {};
    for (int i = 0; i < n; ++i) lanes[i] = p[i];
    return load(lanes);
  }
  template <class T>
  MOBA_INLINE void store_partial(T* p, F v, int n) {
    T lanes[kLanes];
    store(lanes, v);
    for (int i = 0; i < n; ++i) p[i] = lanes[i];
  }

  // ---- arithmetic
  MOBA_INLINE F fma(F a, F b, F c) { return a * b + c; }
  MOBA_INLINE F select(I mask, F yes, F no) { return (F)((mask & (I)yes) | (~mask & (I)no)); }
  // max(a, b), min(a, b): b if either is NaN, as the x86 instructions. A running maximum max(x, best) therefore skips NaN in x.
  MOBA_INLINE F max(F a, F b) {
#ifdef __AVX512F__
    if constexpr (Bytes == 64) return (F)_mm512_maskz_max_ps(0xffff, (__m512)a, (__m512)b);
#endif
#ifdef __AVX2__
    if constexpr (Bytes == 32) return (F)_mm256_max_ps((__m256)a, (__m256)b);
#endif
    if constexpr (Bytes == 16) return (F)_mm_max_ps((__m128)a, (__m128)b);
    return select((I)(a > b), a, b);
  }
  MOBA_INLINE F min(F a, F b) {
#ifdef __AVX512F__
    if constexpr (Bytes == 64) return (F)_mm512_maskz_min_ps(0xffff, (__m512)a, (__m512)b);
#endif
#ifdef __AVX2__
    if constexpr (Bytes == 32) return (F)_mm256_min_ps((__m256)a, (__m256)b);
#endif
    if constexpr (Bytes == 16) return (F)_mm_min_ps((__m128)a, (__m128)b);
    return select((I)(a < b), a, b);
  }
  MOBA_INLINE F sqrt(F v) {
#ifdef __AVX512F__
    if constexpr (Bytes == 64) return (F)_mm512_maskz_sqrt_ps(0xffff, (__m512)v);
#endif
#ifdef __AVX2__
    if constexpr (Bytes == 32) return (F)_mm256_sqrt_ps((__m256)v);
#endif
    if constexpr (Bytes == 16) return (F)_mm_sqrt_ps((__m128)v);
    for (int i = 0; i < kLanes; ++i) v[i] = __builtin_sqrtf(v[i]);
    return v;
  }
  MOBA_INLINE F abs(F v) { return (F)((I)v & 0x7fffffff); }

  // 2^y, relative error 2e-7; 0 below -126 (no denormals), +Inf from 127.5, NaN stays NaN, exactly 1 at 0.
  MOBA_INLINE F exp2(F y) { return exp2_to_127(min(splat(128.0f), y)); }  // in this operand order NaN passes
  // The same for y < 128 or NaN, three operations less: what lies below -126 is only replaced at the end.
  MOBA_INLINE F exp2_to_127(F y) {
    const F rounded = y + splat(kRound);
    const F f = y - (rounded - splat(kRound));
    F p = fma(splat(1.535336188e-4f), f, splat(1.339887440e-3f));
    p = fma(p, f, splat(9.618437357e-3f));
    p = fma(p, f, splat(5.550332471e-2f));
    p = fma(p, f, splat(2.402264791e-1f));
    p = fma(p, f, splat(6.931472028e-1f));
    p = fma(p, f, splat(1.0f));
    return scaled(p, rounded, y);
  }
  // 2^y for y < 128 or NaN to 1.2e-4 relative: enough where the result is rounded to bf16 next.
  MOBA_INLINE F exp2_short(F y) {
    const F rounded = y + splat(kRound);
    const F f = y - (rounded - splat(kRound));
    F p = fma(splat(5.5171669e-2f), f, splat(2.4261112e-1f));
    p = fma(p, f, splat(6.9326098e-1f));
    p = fma(p, f, splat(1.0f));
    return scaled(p, rounded, y);
  }
  MOBA_INLINE F exp(F x) { return exp2(x * splat(1.44269504f)); }

  // ---- reductions over lanes, in a fixed order (halves added)
  MOBA_INLINE float sum(F v) {
    if constexpr (Bytes > 16) {
      using Half = Simd<Bytes / 2>;
      typename Half::F h[2];
      __builtin_memcpy(h, &v, Bytes);
      return Half::sum(h[0] + h[1]);
    }
    return (v[0] + v[2]) + (v[1] + v[3]);
  }
  MOBA_INLINE float reduce_max(F v) {  // NaN lanes: see max
    if constexpr (Bytes > 16) {
      using Half = Simd<Bytes / 2>;
      typename Half::F h[2];
      __builtin_memcpy(h, &v, Bytes);
      return Half::reduce_max(Half::max(h[0], h[1]));
    }
    const float a = v[0] > v[2] ? v[0] : v[2], b = v[1] > v[3] ? v[1] : v[3];
    return a > b ? a : b;
  }

 private:
  // p * 2^(the integer that stands in the low bits of `rounded`), 0 where y < -126.
  MOBA_INLINE F scaled(F p, F rounded, F y) {
    const F power = (F)(((U)rounded + (127u - kRoundBits)) << 23);
    return (F)((I)(p * power) & ~(I)(y < splat(-126.0f)));
  }

  static constexpr float kRound = 12582912.0f;         // 1.5 * 2^23: adding it rounds to an integer
  static constexpr uint32_t kRoundBits = 0x4b400000u;  // its bits; the integer stands in the low bits
};

// to[i * ld + j] = lane i of row j: four rows of four words, transposed.
MOBA_INLINE void store_transposed(Simd<16>::F a, Simd<16>::F b, Simd<16>::F c, Simd<16>::F d, float* to, int64_t ld) {
  using Q = Simd<16>;
  const Q::F ab = __builtin_shuffle(a, b, (Q::I){0, 4, 1, 5}), ab2 = __builtin_shuffle(a, b, (Q::I){2, 6, 3, 7});
  const Q::F cd = __builtin_shuffle(c, d, (Q::I){0, 4, 1, 5}), cd2 = __builtin_shuffle(c, d, (Q::I){2, 6, 3, 7});
  Q::store(to, __builtin_shuffle(ab, cd, (Q::I){0, 1, 4, 5}));
  Q::store(to + ld, __builtin_shuffle(ab, cd, (Q::I){2, 3, 6, 7}));
  Q::store(to + 2 * ld, __builtin_shuffle(ab2, cd2, (Q::I){0, 1, 4, 5}));
  Q::store(to + 3 * ld, __builtin_shuffle(ab2, cd2, (Q::I){2, 3, 6, 7}));
}

}  // namespace moba
