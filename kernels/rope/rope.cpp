#include "kernels/rope/rope.h"

#include <cmath>
#include <numbers>

#include "kernels/common/check.h"
#include "kernels/common/profile.h"
#include "kernels/common/threads.h"
#include "kernels/rope/rope_table.h"

namespace moba::kernels {
namespace {

constexpr int64_t kTokensPerPiece = 16;
constexpr int64_t kPairs = 128;  // cos and sin of so many pairs are held at a time

// Llama 3: wavelengths longer than the low boundary are stretched by `factor`, those shorter than the high one kept, the
// rest interpolated between the two.
double llama3_frequency(double frequency, const RopeScaling& s) {
  const auto original = static_cast<double>(s.original_max_position_embeddings);
  const double wavelength = 2 * std::numbers::pi / frequency;
  if (wavelength < original / s.high_freq_factor) return frequency;
  if (wavelength > original / s.low_freq_factor) return frequency / s.factor;
  const double smooth = (original / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
  return (1 - smooth) * frequency / s.factor + smooth * frequency;
}

void validate(const RopeArgs& a) {
  require_cpu("rope", a.stream);
  MOBA_CHECK(a.dtype == DType::f32 || a.dtype == DType::bf16 || a.dtype == DType::f64,
             "rope: dtype {} is not supported; use f32, bf16 or f64", dtype_name(a.dtype));
  MOBA_CHECK(a.tokens >= 0 && a.heads >= 0, "rope: tokens and heads must be >= 0, got {} and {}", a.tokens, a.heads);
  MOBA_CHECK(a.head_dim >= 2 && a.head_dim % 2 == 0, "rope: head_dim must be even, got {}", a.head_dim);
}

template <class T, class Rotate>
void run(const RopeArgs& a, const RopeLoops& loops, Rotate rotate) {
  const int64_t half = a.head_dim / 2;
  parallel_for(a.tokens, kTokensPerPiece, [&](int64_t begin, int64_t end) {
    float cos[kPairs], sin[kPairs];
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t d = 0; d < half; d += kPairs) {
        const int64_t pairs = half - d < kPairs ? half - d : kPairs;
        loops.angles(pairs, a.inverse ? -a.positions[t] : a.positions[t], a.inv_freq + d, cos, sin);
        const int64_t row = t * a.heads * a.head_dim + d;
        const T* x = static_cast<const T*>(a.x) + row;
        T* y = static_cast<T*>(a.y) + row;
        for (int64_t h = 0; h < a.heads; ++h, x += a.head_dim, y += a.head_dim) rotate(pairs, cos, sin, x, x + half, y, y + half);
      }
    }
  });
}

}  // namespace

std::vector<double> rope_inv_freq(int64_t head_dim, double theta, const RopeScaling& s) {
  MOBA_CHECK(head_dim >= 2 && head_dim % 2 == 0, "rope: head_dim must be even, got {}", head_dim);
  MOBA_CHECK(std::isfinite(theta) && theta > 0, "rope_theta must be > 0, got {}", theta);
  MOBA_CHECK(std::isfinite(s.position_interpolation) && s.position_interpolation > 0,
             "rope_scaling.position_interpolation must be > 0, got {}", s.position_interpolation);
  if (s.type != RopeType::none) MOBA_CHECK(std::isfinite(s.factor) && s.factor > 0, "rope_scaling.factor must be > 0, got {}", s.factor);
  if (s.type == RopeType::llama3) {
    MOBA_CHECK(s.low_freq_factor > 0 && s.high_freq_factor > s.low_freq_factor,
               "rope_scaling: need 0 < low_freq_factor < high_freq_factor, got {} and {}", s.low_freq_factor, s.high_freq_factor);
    MOBA_CHECK(s.original_max_position_embeddings >= 1, "rope_scaling.original_max_position_embeddings must be >= 1, got {}",
               s.original_max_position_embeddings);
  }
  std::vector<double> frequencies(static_cast<size_t>(head_dim / 2));
  for (size_t d = 0; d < frequencies.size(); ++d) {
    double f = std::pow(theta, -2.0 * static_cast<double>(d) / static_cast<double>(head_dim));
    if (s.type == RopeType::linear) f /= s.factor;
    if (s.type == RopeType::llama3) f = llama3_frequency(f, s);
    frequencies[d] = f / s.position_interpolation;
  }
  return frequencies;
}

void rope(const RopeArgs& a) {
  validate(a);
  const ProfileScope profile("rope", {.bytes = 2 * bytes_of(a.tokens * a.heads * a.head_dim, a.dtype)});
  if (use_reference(a.dtype)) return rope_reference(a);
  const RopeLoops& loops = pick_isa(sse::rope_loops, avx2::rope_loops, avx512::rope_loops);
  if (a.dtype == DType::f32) return run<float>(a, loops, loops.rotate_f32);
  run<bf16>(a, loops, loops.rotate_bf16);
}

}  // namespace moba::kernels
