// Included once per instruction set with MOBA_ISA naming the namespace.
#include "kernels/common/loop_math.h"
#include "kernels/elementwise/elementwise_table.h"

namespace moba::kernels::MOBA_ISA {
namespace {

template <class T>
void add(int64_t n, const T* a, const T* b, T* y) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) store(y[i], load(a[i]) + load(b[i]));
}

template <class T>
void multiply(int64_t n, const T* a, const T* b, T* y) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) store(y[i], load(a[i]) * load(b[i]));
}

template <class Src, class Dst>
void accumulate(int64_t n, const Src* src, Dst* dst) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) store(dst[i], load(dst[i]) + load(src[i]));
}

template <class T>
void scale(int64_t n, float factor, const T* x, T* y) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) store(y[i], factor * load(x[i]));
}

template <class From, class To>
void convert(int64_t n, const From* x, To* y) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) store(y[i], load(x[i]));
}

}  // namespace

extern const ElementwiseLoops elementwise_loops = {
    add<float>,
    add<bf16>,
    multiply<float>,
    multiply<bf16>,
    accumulate<float, float>,
    accumulate<bf16, float>,
    accumulate<bf16, bf16>,
    scale<float>,
    scale<bf16>,
    convert<float, bf16>,
    convert<bf16, float>,
};

}  // namespace moba::kernels::MOBA_ISA
