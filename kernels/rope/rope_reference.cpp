// Plain loops in fp64; cos and sin are rounded to fp32 first (f64 stays exact), as in every other variant.
#include <cmath>

#include "kernels/common/visit_dtype.h"
#include "kernels/rope/rope.h"

namespace moba::kernels {

void rope_reference(const RopeArgs& a) {
  visit_float("rope", a.dtype, [&]<class T>(T) {
    using Angle = Accumulator<T>;
    const int64_t half = a.head_dim / 2;
    for (int64_t t = 0; t < a.tokens; ++t) {
      for (int64_t d = 0; d < half; ++d) {
        const double angle = a.positions[t] * a.inv_freq[d];
        const double c = static_cast<Angle>(std::cos(angle)), s = static_cast<Angle>(a.inverse ? -std::sin(angle) : std::sin(angle));
        for (int64_t h = 0; h < a.heads; ++h) {
          const int64_t at = (t * a.heads + h) * a.head_dim + d;
          const double x1 = widen(static_cast<const T*>(a.x)[at]), x2 = widen(static_cast<const T*>(a.x)[at + half]);
          static_cast<T*>(a.y)[at] = narrow<T>(x1 * c - x2 * s);
          static_cast<T*>(a.y)[at + half] = narrow<T>(x2 * c + x1 * s);
        }
      }
    }
  });
}

}  // namespace moba::kernels
