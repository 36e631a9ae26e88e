// Plain loops in fp64.
#include <cmath>
#include <vector>

#include "kernels/common/visit_dtype.h"
#include "kernels/key_conv/key_conv.h"

namespace moba::kernels {
namespace {

// k_{t-l} of sequence b starting at `first`; tokens before it come from history or count as 0.
template <class T>
double tap(const KeyConvArgs& a, int64_t b, int64_t first, int64_t t, int64_t l, int64_t c) {
  if (t - l >= first) return widen(static_cast<const T*>(a.k)[(t - l) * a.channels + c]);
  if (!a.history) return 0;
  const int64_t row = (a.width - 1) + (t - l - first);  // the newest missing token is the last row
  return widen(static_cast<const T*>(a.history)[(b * (a.width - 1) + row) * a.channels + c]);
}

template <class T>
double convolution(const KeyConvArgs& a, int64_t b, int64_t first, int64_t t, int64_t c) {
  double u = 0;
  for (int64_t l = 0; l < a.width; ++l) u += widen(static_cast<const T*>(a.weight)[c * a.width + l]) * tap<T>(a, b, first, t, l, c);
  return u;
}

}  // namespace

void key_conv_forward_reference(const KeyConvArgs& a) {
  visit_float("key_conv", a.dtype, [&]<class T>(T) {
    for (int64_t b = 0; b < a.batch; ++b)
      for (int64_t t = a.cu_seqlens[b]; t < a.cu_seqlens[b + 1]; ++t)
        for (int64_t c = 0; c < a.channels; ++c) {
          const double u = convolution<T>(a, b, a.cu_seqlens[b], t, c);
          static_cast<T*>(a.out)[t * a.channels + c] = narrow<T>(tap<T>(a, b, a.cu_seqlens[b], t, 0, c) + u / (1 + std::exp(-u)));
        }
  });
}

void key_conv_backward_reference(const KeyConvGradArgs& g) {
  const KeyConvArgs& a = g.forward;
  visit_float("key_conv", a.dtype, [&]<class T>(T) {
    const T *dout = static_cast<const T*>(g.dout), *weight = static_cast<const T*>(a.weight);
    auto* dweight = static_cast<Accumulator<T>*>(g.dweight);
    for (int64_t b = 0; b < a.batch; ++b) {
      const int64_t first = a.cu_seqlens[b], last = a.cu_seqlens[b + 1];
      for (int64_t c = 0; c < a.channels; ++c) {
        std::vector<double> dk(static_cast<size_t>(last - first));
        for (int64_t t = first; t < last; ++t) {
          const double d = widen(dout[t * a.channels + c]), u = convolution<T>(a, b, first, t, c), s = 1 / (1 + std::exp(-u));
          const double du = d * (s + u * s * (1 - s));
          dk[static_cast<size_t>(t - first)] += d;
          for (int64_t l = 0; l < a.width && t - l >= first; ++l) {
            dk[static_cast<size_t>(t - l - first)] += widen(weight[c * a.width + l]) * du;
            dweight[c * a.width + l] += static_cast<Accumulator<T>>(du * tap<T>(a, b, first, t, l, c));
          }
        }
        for (int64_t t = first; t < last; ++t) static_cast<T*>(g.dk)[t * a.channels + c] = narrow<T>(dk[static_cast<size_t>(t - first)]);
      }
    }
  });
}

}  // namespace moba::kernels
