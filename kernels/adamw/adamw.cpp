#include "kernels/adamw/adamw.h"

#include <cmath>

#include "kernels/adamw/adamw_table.h"
#include "kernels/common/check.h"
#include "kernels/common/profile.h"
#include "kernels/common/threads.h"
#include "kernels/common/visit_dtype.h"

namespace moba::kernels {
namespace {

constexpr int64_t kGrain = 1 << 15;  // elements per piece

AdamwStep constants(const AdamwArgs& a) {
  const auto t = static_cast<double>(a.step);
  return {a.grad_scale,
          a.beta1,
          a.beta2,
          a.eps,
          1 - a.lr * a.weight_decay,
          a.lr / (1 - std::pow(a.beta1, t)),
          std::sqrt(1 - std::pow(a.beta2, t))};
}

void validate(const AdamwArgs& a) {
  require_cpu("adamw", a.stream);
  MOBA_CHECK(a.dtype == DType::f32 || a.dtype == DType::f64, "adamw: dtype {} is not supported; masters and moments are f32 (or f64)",
             dtype_name(a.dtype));
  MOBA_CHECK(a.n >= 0, "adamw: n must be >= 0, got {}", a.n);
  MOBA_CHECK(a.step >= 1, "adamw: step is counted from 1, got {}", a.step);
  MOBA_CHECK(a.beta1 >= 0 && a.beta1 < 1 && a.beta2 >= 0 && a.beta2 < 1, "adamw: betas must be in [0, 1), got {} and {}", a.beta1, a.beta2);
  MOBA_CHECK(a.eps >= 0, "adamw: eps must be >= 0, got {}", a.eps);
}

template <class T>
void reference(const AdamwArgs& a) {
  const AdamwStep s = constants(a);
  const T* g = static_cast<const T*>(a.grad);
  T *w = static_cast<T*>(a.weight), *m = static_cast<T*>(a.m), *v = static_cast<T*>(a.v);
  for (int64_t i = 0; i < a.n; ++i) {
    const double gi = g[i] * s.grad_scale;
    const double mi = s.beta1 * m[i] + (1 - s.beta1) * gi;
    const double vi = s.beta2 * v[i] + (1 - s.beta2) * gi * gi;
    const double wi = w[i] * s.keep - s.step_size * mi / (std::sqrt(vi) / s.sqrt_correction2 + s.eps);
    m[i] = static_cast<T>(mi);
    v[i] = static_cast<T>(vi);
    w[i] = static_cast<T>(wi);
    if (a.copy) a.copy[i] = narrow<bf16>(w[i]);
  }
}

}  // namespace

void adamw_reference(const AdamwArgs& a) {
  validate(a);
  if (a.dtype == DType::f64) return reference<double>(a);
  reference<float>(a);
}

void adamw(const AdamwArgs& a) {
  validate(a);
  // Weight, m and v are read and written, the gradient is read.
  const ProfileScope profile("adamw", {.flops = 12.0 * static_cast<double>(a.n),
                                       .bytes = 7 * bytes_of(a.n, a.dtype) + (a.copy ? 2.0 * static_cast<double>(a.n) : 0.0)});
  if (use_reference(a.dtype)) return adamw_reference(a);
  const AdamwStep s = constants(a);
  const AdamwLoops& loops = pick_isa(sse::adamw_loops, avx2::adamw_loops, avx512::adamw_loops);
  const auto* g = static_cast<const float*>(a.grad);
  auto *w = static_cast<float*>(a.weight), *m = static_cast<float*>(a.m), *v = static_cast<float*>(a.v);
  parallel_for(a.n, kGrain,
               [&](int64_t b, int64_t e) { loops.update(e - b, s, g + b, w + b, m + b, v + b, a.copy ? a.copy + b : nullptr); });
}

}  // namespace moba::kernels
