// Included once per instruction set with MOBA_ISA naming the namespace.
#include "kernels/adamw/adamw_table.h"
#include "kernels/common/loop_math.h"

namespace moba::kernels::MOBA_ISA {
namespace {

template <bool kCopy>
void update_as(int64_t n, const AdamwStep& s, const float* g, float* w, float* m, float* v, bf16* copy) {
  const auto grad_scale = static_cast<float>(s.grad_scale), beta2 = static_cast<float>(s.beta2), eps = static_cast<float>(s.eps);
  const auto take1 = static_cast<float>(1 - s.beta1), take2 = static_cast<float>(1 - s.beta2), keep = static_cast<float>(s.keep);
  const auto step_size = static_cast<float>(s.step_size), sqrt_correction2 = static_cast<float>(s.sqrt_correction2);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float gi = g[i] * grad_scale;
    const float mi = m[i] + take1 * (gi - m[i]);
    const float vi = beta2 * v[i] + take2 * (gi * gi);
    const float wi = w[i] * keep - step_size * (mi / (__builtin_sqrtf(vi) / sqrt_correction2 + eps));
    m[i] = mi;
    v[i] = vi;
    w[i] = wi;
    if constexpr (kCopy) store(copy[i], wi);
  }
}

void update(int64_t n, const AdamwStep& s, const float* g, float* w, float* m, float* v, bf16* copy) {
  if (copy) return update_as<true>(n, s, g, w, m, v, copy);
  update_as<false>(n, s, g, w, m, v, nullptr);
}

}  // namespace

extern const AdamwLoops adamw_loops = {update};

}  // namespace moba::kernels::MOBA_ISA
