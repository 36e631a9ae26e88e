#include "kernels/common/threads.h"
#include "kernels/elementwise/elementwise.h"
#include "src/autograd/ops/op_support.h"

namespace moba::ops {
namespace {

constexpr int64_t kPiece = 4096;  // elements added by one thread at a time; the order of additions depends on it alone

double sum_of(const Tensor& values) {
  const Tensor x = values.to(Device{}).to(DType::f64);
  const double* data = x.data<double>();
  const int64_t n = x.numel(), pieces = (n + kPiece - 1) / kPiece;
  std::vector<double> partial(static_cast<size_t>(pieces));
  parallel_items(pieces, [&](int64_t piece, int) {
    const int64_t end = std::min(n, (piece + 1) * kPiece);
    double total = 0;
    for (int64_t i = piece * kPiece; i < end; ++i) total += data[i];
    partial[static_cast<size_t>(piece)] = total;
  });
  double total = 0;
  for (double p : partial) total += p;
  return total;
}

}  // namespace

Variable sum(const Variable& x) {
  Tensor y = Tensor::full({1}, sum_of(x.value()), DType::f64, x.value().device());
  return make_output(std::move(y), "sum", {x},
                     [x = x.edge()](const Tensor& grad) { x.add_grad(Tensor::full(x.shape(), grad.item(), x.dtype(), grad.device())); });
}

}  // namespace moba::ops
