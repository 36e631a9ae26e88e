// Included once per instruction set with MOBA_ISA naming the namespace.
#include "kernels/common/loop_math.h"
#include "kernels/grad_norm/grad_norm_table.h"

namespace moba::kernels::MOBA_ISA {
namespace {

template <class T>
double sum_of_squares(int64_t n, const T* x) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const double v = load(x[i]);
    sum += v * v;
  }
  return sum;
}

}  // namespace

extern const GradNormLoops grad_norm_loops = {sum_of_squares<float>, sum_of_squares<bf16>};

}  // namespace moba::kernels::MOBA_ISA
