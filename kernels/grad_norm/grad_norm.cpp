#include "kernels/grad_norm/grad_norm.h"

#include <vector>

#include "kernels/common/profile.h"
#include "kernels/common/threads.h"
#include "kernels/common/visit_dtype.h"
#include "kernels/grad_norm/grad_norm_table.h"

namespace moba::kernels {
namespace {

constexpr int64_t kPiece = 1 << 16;  // elements per partial sum; fixed, so the bits do not depend on threads

template <class T, class Loop>
double pieces_in_order(int64_t n, const void* x, Loop loop) {
  std::vector<double> partial(static_cast<size_t>((n + kPiece - 1) / kPiece));
  parallel_for(n, kPiece,
               [&](int64_t b, int64_t e) { partial[static_cast<size_t>(b / kPiece)] = loop(e - b, static_cast<const T*>(x) + b); });
  double sum = 0;
  for (double p : partial) sum += p;
  return sum;
}

}  // namespace

double sum_of_squares_reference(DType dtype, int64_t n, const void* x) {
  double sum = 0;
  visit_float("sum_of_squares", dtype, [&]<class T>(T) {
    for (int64_t i = 0; i < n; ++i) {
      const double v = widen(static_cast<const T*>(x)[i]);
      sum += v * v;
    }
  });
  return sum;
}

double sum_of_squares(const Stream& stream, DType dtype, int64_t n, const void* x) {
  require_cpu("sum_of_squares", stream);
  MOBA_CHECK(n >= 0, "sum_of_squares: n must be >= 0, got {}", n);
  const ProfileScope profile("gradient norm", {.flops = 2.0 * static_cast<double>(n), .bytes = bytes_of(n, dtype)});
  const GradNormLoops& loops = pick_isa(sse::grad_norm_loops, avx2::grad_norm_loops, avx512::grad_norm_loops);
  if (use_reference(dtype)) return sum_of_squares_reference(dtype, n, x);
  if (dtype == DType::f32) return pieces_in_order<float>(n, x, loops.sum_of_squares_f32);
  if (dtype == DType::bf16) return pieces_in_order<bf16>(n, x, loops.sum_of_squares_bf16);
  return sum_of_squares_reference(dtype, n, x);  // refuses the dtype
}

}  // namespace moba::kernels
