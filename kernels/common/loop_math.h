// Scalar building blocks of the vectorised loops (<op>_loops.h). They are branch-free so that g++ turns a loop marked
// `#pragma omp simd` into vector code of whatever instruction set the file is compiled for, reductions included. Everything
// is static and always inlined: no symbol of an AVX-512 file may be picked by the linker for an older CPU.
#pragma once
#include "kernels/common/types.h"

namespace moba::kernels {

[[gnu::always_inline]] static inline float load(float x) { return x; }
[[gnu::always_inline]] static inline float load(bf16 x) { return __builtin_bit_cast(float, uint32_t{x.bits} << 16); }

[[gnu::always_inline]] static inline void store(float& out, float x) { out = x; }
// Round to nearest, ties to even; NaN stays NaN. Select instead of branch.
[[gnu::always_inline]] static inline void store(bf16& out, float x) {
  const uint32_t u = __builtin_bit_cast(uint32_t, x);
  const uint32_t rounded = u + 0x7fffu + ((u >> 16) & 1u);
  const uint32_t quiet = u | 0x400000u;
  out.bits = static_cast<uint16_t>((x != x ? quiet : rounded) >> 16);
}

// exp with about 1e-7 relative error; exp(-inf) = 0, overflow gives inf, NaN stays NaN. x = n ln2 + r, |r| <= ln2 / 2;
// 2^n is applied in two halves so that neither leaves the exponent range.
[[gnu::always_inline]] static inline float exp_f32(float x) {
  constexpr float kLog2e = 1.44269504088896f, kRound = 12582912.0f;                  // 1.5 * 2^23: adding it rounds to an integer
  constexpr float kLn2High = 0.693145751953125f, kLn2Low = 1.42860682030941723e-6f;  // n * high is exact for |n| < 2^9
  float c = x > 89.0f ? 89.0f : x;
  c = c < -105.0f ? -105.0f : c;
  const float shifted = c * kLog2e + kRound;
  const float n = shifted - kRound;
  const int32_t e = static_cast<int32_t>(__builtin_bit_cast(uint32_t, shifted)) - 0x4b400000;
  const float r = (c - n * kLn2High) - n * kLn2Low;
  float p = 1.98756915e-4f;
  p = p * r + 1.39819995e-3f;
  p = p * r + 8.33345196e-3f;
  p = p * r + 4.16657962e-2f;
  p = p * r + 1.66666655e-1f;
  p = p * r + 5.00000012e-1f;
  p = (p * r) * r + (r + 1.0f);
  const int32_t half = e >> 1;
  const float a = __builtin_bit_cast(float, static_cast<uint32_t>(half + 127) << 23);
  const float b = __builtin_bit_cast(float, static_cast<uint32_t>(e - half + 127) << 23);
  return p * a * b;
}

[[gnu::always_inline]] static inline float sigmoid_f32(float x) { return 1.0f / (1.0f + exp_f32(-x)); }

}  // namespace moba::kernels
