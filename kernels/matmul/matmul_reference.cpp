// Plain loops, each row of C in fp64.
#include <vector>

#include "kernels/common/threads.h"
#include "kernels/common/visit_dtype.h"
#include "kernels/matmul/matmul.h"

namespace moba::kernels {
namespace {

int64_t stride_or(int64_t ld, int64_t packed) { return ld ? ld : packed; }

template <class In, class Out>
void row(const MatmulArgs& p, int64_t i, double* sums) {
  const In *a = static_cast<const In*>(p.a), *b = static_cast<const In*>(p.b);
  const int64_t lda = stride_or(p.lda, p.transpose_a ? p.m : p.k), ldb = stride_or(p.ldb, p.transpose_b ? p.k : p.n);
  const int64_t b_row = p.transpose_b ? 1 : ldb, b_col = p.transpose_b ? ldb : 1;
  for (int64_t j = 0; j < p.n; ++j) sums[j] = 0;
  for (int64_t l = 0; l < p.k; ++l) {
    const double x = widen(p.transpose_a ? a[l * lda + i] : a[i * lda + l]);
    for (int64_t j = 0; j < p.n; ++j) sums[j] += x * widen(b[l * b_row + j * b_col]);
  }
  Out* c = static_cast<Out*>(p.c) + i * stride_or(p.ldc, p.n);
  for (int64_t j = 0; j < p.n; ++j) c[j] = narrow<Out>(p.alpha * sums[j] + (p.beta == 0 ? 0.0 : p.beta * widen(c[j])));
}

}  // namespace

void matmul_reference(const MatmulArgs& p) {
  visit_float("matmul", p.dtype, [&]<class In>(In) {
    visit_float("matmul", p.out_dtype, [&]<class Out>(Out) {
      parallel_for(p.m, 16, [&](int64_t begin, int64_t end) {
        std::vector<double> sums(static_cast<size_t>(p.n));
        for (int64_t i = begin; i < end; ++i) row<In, Out>(p, i, sums.data());
      });
    });
  });
}

}  // namespace moba::kernels
