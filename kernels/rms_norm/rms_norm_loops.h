// Included once per instruction set with MOBA_ISA naming the namespace.
#include "kernels/common/loop_math.h"
#include "kernels/rms_norm/rms_norm_table.h"

namespace moba::kernels::MOBA_ISA {
namespace {

template <class T>
float forward(int64_t cols, double eps, const T* x, const T* residual, const T* weight, T* sum_out, T* y) {
  if (residual) {
#pragma omp simd
    for (int64_t i = 0; i < cols; ++i) store(sum_out[i], load(x[i]) + load(residual[i]));
    x = sum_out;
  }
  float squares = 0;
#pragma omp simd reduction(+ : squares)
  for (int64_t i = 0; i < cols; ++i) squares += load(x[i]) * load(x[i]);
  const auto rstd = static_cast<float>(1.0 / __builtin_sqrt(static_cast<double>(squares) / static_cast<double>(cols) + eps));
#pragma omp simd
  for (int64_t i = 0; i < cols; ++i) store(y[i], load(x[i]) * rstd * load(weight[i]));
  return rstd;
}

template <class T>
void backward(int64_t cols, float rstd, const T* x, const T* weight, const T* dy, const T* dsum, T* dx, float* dweight) {
  float dot = 0;  // of dy * w with x
#pragma omp simd reduction(+ : dot)
  for (int64_t i = 0; i < cols; ++i) dot += load(dy[i]) * load(weight[i]) * load(x[i]);
  const float along = rstd * rstd * (dot / static_cast<float>(cols));
#pragma omp simd
  for (int64_t i = 0; i < cols; ++i) {
    const float xi = load(x[i]), di = load(dy[i]);
    const float extra = dsum ? load(dsum[i]) : 0.0f;
    dweight[i] += di * (xi * rstd);
    store(dx[i], rstd * (di * load(weight[i]) - xi * along) + extra);
  }
}

}  // namespace

extern const RmsNormLoops rms_norm_loops = {{forward<float>, backward<float>}, {forward<bf16>, backward<bf16>}};

}  // namespace moba::kernels::MOBA_ISA
