// Included once per instruction set with MOBA_ISA naming the namespace.
#include "kernels/common/loop_math.h"
#include "kernels/rms_norm/rms_norm_table.h"

namespace moba::kernels::MOBA_ISA {
namespace {

// Sum of f(i) in pieces: a compiler that does not vectorise the inner loop (with sanitizers) must not lose digits in one long sum.
template <class F>
double sum(int64_t n, F f) {
  constexpr int64_t kPiece = 256;
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kPiece) {
    const int64_t end = n < begin + kPiece ? n : begin + kPiece;
    float piece = 0;
#pragma omp simd reduction(+ : piece)
    for (int64_t i = begin; i < end; ++i) piece += f(i);
    total += static_cast<double>(piece);
  }
  return total;
}

template <class T>
float forward(int64_t cols, double eps, const T* x, const T* residual, const T* weight, T* sum_out, T* y) {
  if (residual) {
#pragma omp simd
    for (int64_t i = 0; i < cols; ++i) store(sum_out[i], load(x[i]) + load(residual[i]));
    x = sum_out;
  }
  const double squares = sum(cols, [x](int64_t i) { return load(x[i]) * load(x[i]); });
  const auto rstd = static_cast<float>(1.0 / __builtin_sqrt(squares / static_cast<double>(cols) + eps));
#pragma omp simd
  for (int64_t i = 0; i < cols; ++i) store(y[i], load(x[i]) * rstd * load(weight[i]));
  return rstd;
}

template <class T>
void backward(int64_t cols, float rstd, const T* x, const T* weight, const T* dy, const T* dsum, T* dx, float* dweight) {
  const double dot = sum(cols, [=](int64_t i) { return load(dy[i]) * load(weight[i]) * load(x[i]); });
  const float along = rstd * rstd * static_cast<float>(dot / static_cast<double>(cols));
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
