// Plain loops in fp64.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/common/visit_dtype.h"
#include "kernels/cross_entropy/cross_entropy.h"

namespace moba::kernels {
namespace {

template <class In, class Out>
void row(const CrossEntropyArgs& a, int64_t r) {
  const In* x = static_cast<const In*>(a.logits) + r * a.vocab;
  Out* d = a.dlogits ? static_cast<Out*>(a.dlogits) + r * a.vocab : nullptr;
  const int32_t target = a.targets[r];
  if (target < 0) {
    if (a.losses) a.losses[r] = 0;
    if (d) std::fill(d, d + a.vocab, narrow<Out>(0));
    return;
  }
  double max = -std::numeric_limits<double>::infinity(), sum = 0;
  for (int64_t i = 0; i < a.vocab; ++i) max = std::max(max, widen(x[i]));
  for (int64_t i = 0; i < a.vocab; ++i) sum += std::exp(widen(x[i]) - max);
  if (a.losses) a.losses[r] = std::log(sum) + max - widen(x[target]);
  if (!d) return;
  for (int64_t i = 0; i < a.vocab; ++i) d[i] = narrow<Out>(a.scale * (std::exp(widen(x[i]) - max) / sum - (i == target ? 1 : 0)));
}

}  // namespace

void cross_entropy_reference(const CrossEntropyArgs& a) {
  visit_float("cross_entropy", a.dtype, [&]<class In>(In) {
    visit_float("cross_entropy", a.grad_dtype, [&]<class Out>(Out) {
      for (int64_t r = 0; r < a.rows; ++r) row<In, Out>(a, r);
    });
  });
}

}  // namespace moba::kernels
