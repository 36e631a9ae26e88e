#include "kernels/cross_entropy/cross_entropy.h"

#include <algorithm>
#include <cmath>

#include "kernels/common/check.h"
#include "kernels/common/profile.h"
#include "kernels/common/threads.h"
#include "kernels/cross_entropy/cross_entropy_table.h"

namespace moba::kernels {
namespace {

void validate(const CrossEntropyArgs& a) {
  require_cpu("cross_entropy", a.stream);
  MOBA_CHECK(a.dtype == DType::f32 || a.dtype == DType::f64, "cross_entropy: logits of {} are not supported; use f32 (or f64)",
             dtype_name(a.dtype));
  MOBA_CHECK(a.grad_dtype == DType::f32 || a.grad_dtype == DType::bf16 || a.grad_dtype == DType::f64,
             "cross_entropy: dlogits of {} are not supported; use f32, bf16 or f64", dtype_name(a.grad_dtype));
  MOBA_CHECK(a.rows >= 0 && a.vocab >= 1, "cross_entropy: rows must be >= 0 and vocab >= 1, got {} and {}", a.rows, a.vocab);
  MOBA_CHECK(a.dlogits != a.logits || a.dtype == a.grad_dtype || a.rows == 0, "cross_entropy: dlogits of {} cannot overwrite logits of {}",
             dtype_name(a.grad_dtype), dtype_name(a.dtype));
  for (int64_t r = 0; r < a.rows; ++r)
    MOBA_CHECK(a.targets[r] >= -1 && a.targets[r] < a.vocab, "cross_entropy: target {} of row {} is outside [0, {}) (-1 = not counted)",
               a.targets[r], r, a.vocab);
}

template <class T>
void row(const CrossEntropyArgs& a, int64_t r, const CrossEntropyLoops& loops, void (*write)(int64_t, const float*, float, float, T*)) {
  const float* x = static_cast<const float*>(a.logits) + r * a.vocab;
  T* d = a.dlogits ? static_cast<T*>(a.dlogits) + r * a.vocab : nullptr;
  const int32_t target = a.targets[r];
  if (target < 0) {
    if (a.losses) a.losses[r] = 0;
    if (d) std::fill(d, d + a.vocab, T{});
    return;
  }
  const SoftmaxSum s = loops.reduce(a.vocab, x);
  const double at_target = static_cast<double>(x[target]) - static_cast<double>(s.max);  // read before dlogits overwrites it
  if (a.losses) a.losses[r] = std::log(s.sum) - at_target;
  if (!d) return;
  write(a.vocab, x, s.max, static_cast<float>(a.scale / s.sum), d);
  const double p = std::exp(at_target) / s.sum;
  if constexpr (std::is_same_v<T, bf16>)
    d[target] = to_bf16(static_cast<float>(a.scale * (p - 1)));
  else
    d[target] = static_cast<float>(a.scale * (p - 1));
}

}  // namespace

void cross_entropy(const CrossEntropyArgs& a) {
  validate(a);
  const int64_t n = a.rows * a.vocab;
  const ProfileScope profile("cross_entropy", {.bytes = bytes_of(n, a.dtype) + (a.dlogits ? bytes_of(n, a.grad_dtype) : 0)});
  if (use_reference(a.dtype) || a.grad_dtype == DType::f64) return cross_entropy_reference(a);
  const CrossEntropyLoops& loops = pick_isa(sse::cross_entropy_loops, avx2::cross_entropy_loops, avx512::cross_entropy_loops);
  parallel_items(a.rows, [&](int64_t r, int) {
    if (a.grad_dtype == DType::f32) return row(a, r, loops, loops.write_f32);
    row(a, r, loops, loops.write_bf16);
  });
}

}  // namespace moba::kernels
