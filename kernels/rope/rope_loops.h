// Included once per instruction set with MOBA_ISA naming the namespace.
#include "kernels/common/loop_math.h"
#include "kernels/rope/rope_table.h"

namespace moba::kernels::MOBA_ISA {
namespace {

// Reduction to |r| <= pi/4 by n * pi/2 in two parts (the high one has 33 bits, exact for n < 2^20, angles up to 1.6e6; beyond
// that the error grows by 1e-16 * n and stays below fp32's up to angles of 1e8), then Taylor terms to below 1e-11.
void angles(int64_t pairs, double position, const double* inv_freq, float* cos_out, float* sin_out) {
  constexpr double kTwoOverPi = 0.63661977236758134308, kRound = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer
  constexpr double kHalfPiHigh = 1.57079632673412561417, kHalfPiLow = 6.07710050650619224932e-11;
#pragma omp simd
  for (int64_t i = 0; i < pairs; ++i) {
    const double angle = position * inv_freq[i];
    const double shifted = angle * kTwoOverPi + kRound;
    const double n = shifted - kRound;
    const auto quadrant = static_cast<uint64_t>(__builtin_bit_cast(uint64_t, shifted));
    const double r = (angle - n * kHalfPiHigh) - n * kHalfPiLow, z = r * r;
    const double s = r + r * z * (-1.0 / 6 + z * (1.0 / 120 + z * (-1.0 / 5040 + z * (1.0 / 362880 + z * (-1.0 / 39916800)))));
    const double c = 1 + z * (-0.5 + z * (1.0 / 24 + z * (-1.0 / 720 + z * (1.0 / 40320 + z * (-1.0 / 3628800 + z * (1.0 / 479001600))))));
    const uint64_t swap = 0 - (quadrant & 1);  // all ones in odd quadrants
    const uint64_t sin_bits = __builtin_bit_cast(uint64_t, s), cos_bits = __builtin_bit_cast(uint64_t, c);
    const uint64_t sin_sign = (quadrant & 2) << 62, cos_sign = ((quadrant + 1) & 2) << 62;
    sin_out[i] = static_cast<float>(__builtin_bit_cast(double, ((sin_bits & ~swap) | (cos_bits & swap)) ^ sin_sign));
    cos_out[i] = static_cast<float>(__builtin_bit_cast(double, ((cos_bits & ~swap) | (sin_bits & swap)) ^ cos_sign));
  }
}

template <class T>
void rotate(int64_t pairs, const float* c, const float* s, const T* x1, const T* x2, T* y1, T* y2) {
#pragma omp simd
  for (int64_t i = 0; i < pairs; ++i) {
    const float a = load(x1[i]), b = load(x2[i]);
    store(y1[i], a * c[i] - b * s[i]);
    store(y2[i], b * c[i] + a * s[i]);
  }
}

}  // namespace

extern const RopeLoops rope_loops = {angles, rotate<float>, rotate<bf16>};

}  // namespace moba::kernels::MOBA_ISA
