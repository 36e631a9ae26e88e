#include "kernels/rms_norm/rms_norm.h"

#include <algorithm>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/common/profile.h"
#include "kernels/common/threads.h"
#include "kernels/rms_norm/rms_norm_table.h"

namespace moba::kernels {
namespace {

constexpr int64_t kPieceElements = 1 << 14;  // forward: rows of one piece together
constexpr int64_t kMostPartials = 64;        // backward: row pieces, each with its own fp32 copy of dweight

const RmsNormLoops& loops() { return pick_isa(sse::rms_norm_loops, avx2::rms_norm_loops, avx512::rms_norm_loops); }

void validate(const Stream& stream, DType dtype, int64_t rows, int64_t cols) {
  require_cpu("rms_norm", stream);
  MOBA_CHECK(dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f64,
             "rms_norm: dtype {} is not supported; use f32, bf16 or f64", dtype_name(dtype));
  MOBA_CHECK(rows >= 0 && cols >= 1, "rms_norm: rows must be >= 0 and cols >= 1, got {} and {}", rows, cols);
}

template <class T>
void forward(const RmsNormArgs& a, const RmsNormRows<T>& loop) {
  parallel_for(a.rows, std::max<int64_t>(1, kPieceElements / a.cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t at = r * a.cols;
      const T* residual = a.residual ? static_cast<const T*>(a.residual) + at : nullptr;
      T* sum_out = a.residual ? static_cast<T*>(a.sum_out) + at : nullptr;
      static_cast<float*>(a.rstd)[r] = loop.forward(a.cols, a.eps, static_cast<const T*>(a.x) + at, residual,
                                                    static_cast<const T*>(a.weight), sum_out, static_cast<T*>(a.y) + at);
    }
  });
}

// The pieces depend on the shape only; their partial sums of dweight are added in order.
template <class T>
void backward(const RmsNormGradArgs& a, const RmsNormRows<T>& loop) {
  const int64_t rows_per_piece = std::max<int64_t>(16, (a.rows + kMostPartials - 1) / kMostPartials);
  const int64_t pieces = (a.rows + rows_per_piece - 1) / rows_per_piece;
  std::vector<float> partial(static_cast<size_t>(pieces * a.cols), 0.0f);
  parallel_for(a.rows, rows_per_piece, [&](int64_t begin, int64_t end) {
    float* dweight = partial.data() + begin / rows_per_piece * a.cols;
    for (int64_t r = begin; r < end; ++r) {
      const int64_t at = r * a.cols;
      loop.backward(a.cols, static_cast<const float*>(a.rstd)[r], static_cast<const T*>(a.x) + at, static_cast<const T*>(a.weight),
                    static_cast<const T*>(a.dy) + at, a.dsum ? static_cast<const T*>(a.dsum) + at : nullptr, static_cast<T*>(a.dx) + at,
                    dweight);
    }
  });
  for (int64_t p = 0; p < pieces; ++p)
    for (int64_t c = 0; c < a.cols; ++c) static_cast<float*>(a.dweight)[c] += partial[static_cast<size_t>(p * a.cols + c)];
}

}  // namespace

void rms_norm_forward(const RmsNormArgs& a) {
  validate(a.stream, a.dtype, a.rows, a.cols);
  MOBA_CHECK(!a.residual || a.sum_out, "rms_norm: residual needs sum_out");
  const ProfileScope profile("rms_norm forward", {.bytes = (a.residual ? 4 : 2) * bytes_of(a.rows * a.cols, a.dtype)});
  if (use_reference(a.dtype)) return rms_norm_forward_reference(a);
  if (a.dtype == DType::f32) return forward<float>(a, loops().f32);
  forward<bf16>(a, loops().b16);
}

void rms_norm_backward(const RmsNormGradArgs& a) {
  validate(a.stream, a.dtype, a.rows, a.cols);
  const ProfileScope profile("rms_norm backward", {.bytes = (a.dsum ? 4 : 3) * bytes_of(a.rows * a.cols, a.dtype)});
  if (use_reference(a.dtype)) return rms_norm_backward_reference(a);
  if (a.dtype == DType::f32) return backward<float>(a, loops().f32);
  backward<bf16>(a, loops().b16);
}

}  // namespace moba::kernels
