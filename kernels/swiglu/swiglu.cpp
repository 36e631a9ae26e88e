#include "kernels/swiglu/swiglu.h"

#include "kernels/common/check.h"
#include "kernels/common/profile.h"
#include "kernels/common/threads.h"
#include "kernels/swiglu/swiglu_table.h"

namespace moba::kernels {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements per piece: a few microseconds of work, fits L1 + L2

const SwigluLoops& loops() { return pick_isa(sse::swiglu_loops, avx2::swiglu_loops, avx512::swiglu_loops); }

void validate(const Stream& stream, DType dtype, int64_t n) {
  require_cpu("swiglu", stream);
  MOBA_CHECK(n >= 0, "swiglu: n must be >= 0, got {}", n);
  MOBA_CHECK(dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f64, "swiglu: dtype {} is not supported; use f32, bf16 or f64",
             dtype_name(dtype));
}

template <class T, class Loop>
void run_forward(Loop loop, int64_t n, const void* gate, const void* up, void* y) {
  parallel_for(n, kGrain, [&](int64_t b, int64_t e) {
    loop(e - b, static_cast<const T*>(gate) + b, static_cast<const T*>(up) + b, static_cast<T*>(y) + b);
  });
}

template <class T, class Loop>
void run_backward(Loop loop, int64_t n, const void* gate, const void* up, const void* dy, void* dgate, void* dup) {
  parallel_for(n, kGrain, [&](int64_t b, int64_t e) {
    loop(e - b, static_cast<const T*>(gate) + b, static_cast<const T*>(up) + b, static_cast<const T*>(dy) + b, static_cast<T*>(dgate) + b,
         static_cast<T*>(dup) + b);
  });
}

}  // namespace

void swiglu_forward(const Stream& stream, DType dtype, int64_t n, const void* gate, const void* up, void* y) {
  validate(stream, dtype, n);
  const ProfileScope profile("swiglu forward", {.bytes = 3 * bytes_of(n, dtype)});
  if (use_reference(dtype)) return swiglu_forward_reference(dtype, n, gate, up, y);
  if (dtype == DType::f32) return run_forward<float>(loops().forward_f32, n, gate, up, y);
  run_forward<bf16>(loops().forward_bf16, n, gate, up, y);
}

void swiglu_backward(const Stream& stream, DType dtype, int64_t n, const void* gate, const void* up, const void* dy, void* dgate,
                     void* dup) {
  validate(stream, dtype, n);
  const ProfileScope profile("swiglu backward", {.bytes = 5 * bytes_of(n, dtype)});
  if (use_reference(dtype)) return swiglu_backward_reference(dtype, n, gate, up, dy, dgate, dup);
  if (dtype == DType::f32) return run_backward<float>(loops().backward_f32, n, gate, up, dy, dgate, dup);
  run_backward<bf16>(loops().backward_bf16, n, gate, up, dy, dgate, dup);
}

}  // namespace moba::kernels
