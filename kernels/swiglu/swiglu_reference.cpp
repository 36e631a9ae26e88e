// Plain loops in fp64.
#include <cmath>

#include "kernels/common/visit_dtype.h"
#include "kernels/swiglu/swiglu.h"

namespace moba::kernels {

void swiglu_forward_reference(DType dtype, int64_t n, const void* gate, const void* up, void* y) {
  visit_float("swiglu", dtype, [&]<class T>(T) {
    for (int64_t i = 0; i < n; ++i) {
      const double g = widen(static_cast<const T*>(gate)[i]), u = widen(static_cast<const T*>(up)[i]);
      static_cast<T*>(y)[i] = narrow<T>(g / (1 + std::exp(-g)) * u);
    }
  });
}

void swiglu_backward_reference(DType dtype, int64_t n, const void* gate, const void* up, const void* dy, void* dgate, void* dup) {
  visit_float("swiglu", dtype, [&]<class T>(T) {
    for (int64_t i = 0; i < n; ++i) {
      const double g = widen(static_cast<const T*>(gate)[i]), u = widen(static_cast<const T*>(up)[i]),
                   d = widen(static_cast<const T*>(dy)[i]);
      const double s = 1 / (1 + std::exp(-g));
      static_cast<T*>(dgate)[i] = narrow<T>(d * u * (s + g * s * (1 - s)));
      static_cast<T*>(dup)[i] = narrow<T>(d * g * s);
    }
  });
}

}  // namespace moba::kernels
