#include "kernels/elementwise/elementwise.h"
#include "src/autograd/ops/op_support.h"

namespace moba::ops {

Variable scale(const Variable& x, double factor) {
  const Tensor& xv = x.value();
  Tensor y = empty_like(xv);
  kernels::scale(y.stream(), y.dtype(), y.numel(), factor, xv.raw(), y.raw());
  return make_output(std::move(y), "scale", {x}, [x = x.edge(), factor](const Tensor& grad) {
    Tensor dx = reuse_or_empty(grad);
    kernels::scale(grad.stream(), grad.dtype(), grad.numel(), factor, grad.raw(), dx.raw());
    x.add_grad(std::move(dx));
  });
}

}  // namespace moba::ops
