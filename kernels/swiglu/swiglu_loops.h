// Included once per instruction set with MOBA_ISA naming the namespace.
#include "kernels/common/loop_math.h"
#include "kernels/swiglu/swiglu_table.h"

namespace moba::kernels::MOBA_ISA {
namespace {

template <class T>
void forward(int64_t n, const T* gate, const T* up, T* y) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float g = load(gate[i]);
    store(y[i], g * sigmoid_f32(g) * load(up[i]));
  }
}

template <class T>
void backward(int64_t n, const T* gate, const T* up, const T* dy, T* dgate, T* dup) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float g = load(gate[i]), u = load(up[i]), d = load(dy[i]);
    const float s = sigmoid_f32(g), silu = g * s;
    store(dgate[i], d * u * (s + silu * (1.0f - s)));
    store(dup[i], d * silu);
  }
}

}  // namespace

extern const SwigluLoops swiglu_loops = {forward<float>, forward<bf16>, backward<float>, backward<bf16>};

}  // namespace moba::kernels::MOBA_ISA
