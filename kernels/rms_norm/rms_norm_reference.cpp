// Plain loops in fp64.
#include <cmath>

#include "kernels/common/visit_dtype.h"
#include "kernels/rms_norm/rms_norm.h"

namespace moba::kernels {

void rms_norm_forward_reference(const RmsNormArgs& a) {
  visit_float("rms_norm", a.dtype, [&]<class T>(T) {
    for (int64_t r = 0; r < a.rows; ++r) {
      const T* x = static_cast<const T*>(a.x) + r * a.cols;
      if (a.residual) {
        T* sum = static_cast<T*>(a.sum_out) + r * a.cols;
        for (int64_t i = 0; i < a.cols; ++i) sum[i] = narrow<T>(widen(x[i]) + widen(static_cast<const T*>(a.residual)[r * a.cols + i]));
        x = sum;
      }
      double squares = 0;
      for (int64_t i = 0; i < a.cols; ++i) squares += widen(x[i]) * widen(x[i]);
      const double rstd = 1 / std::sqrt(squares / static_cast<double>(a.cols) + a.eps);
      T* y = static_cast<T*>(a.y) + r * a.cols;
      for (int64_t i = 0; i < a.cols; ++i) y[i] = narrow<T>(widen(x[i]) * rstd * widen(static_cast<const T*>(a.weight)[i]));
      static_cast<Accumulator<T>*>(a.rstd)[r] = static_cast<Accumulator<T>>(rstd);
    }
  });
}

void rms_norm_backward_reference(const RmsNormGradArgs& a) {
  visit_float("rms_norm", a.dtype, [&]<class T>(T) {
    const T* w = static_cast<const T*>(a.weight);
    auto* dweight = static_cast<Accumulator<T>*>(a.dweight);
    for (int64_t r = 0; r < a.rows; ++r) {
      const T *x = static_cast<const T*>(a.x) + r * a.cols, *dy = static_cast<const T*>(a.dy) + r * a.cols;
      const double rstd = static_cast<const Accumulator<T>*>(a.rstd)[r];
      double dot = 0;
      for (int64_t i = 0; i < a.cols; ++i) dot += widen(dy[i]) * widen(w[i]) * widen(x[i]);
      const double along = rstd * rstd * dot / static_cast<double>(a.cols);
      for (int64_t i = 0; i < a.cols; ++i) {
        const double extra = a.dsum ? widen(static_cast<const T*>(a.dsum)[r * a.cols + i]) : 0;
        const double xi = widen(x[i]), di = widen(dy[i]);
        dweight[i] += static_cast<Accumulator<T>>(di * xi * rstd);
        static_cast<T*>(a.dx)[r * a.cols + i] = narrow<T>(rstd * (di * widen(w[i]) - xi * along) + extra);
      }
    }
  });
}

}  // namespace moba::kernels
