#include "kernels/elementwise/elementwise.h"
#include "src/autograd/ops/op_support.h"

namespace moba::ops {
namespace {

Tensor product(const Tensor& a, const Tensor& b, Tensor y) {
  kernels::multiply(y.stream(), y.dtype(), y.numel(), a.raw(), b.raw(), y.raw());
  return y;
}

}  // namespace

Variable multiply(const Variable& a, const Variable& b) {
  check_same("multiply", a, b);
  Tensor y = product(a.value(), b.value(), empty_like(a.value()));
  return make_output(std::move(y), "multiply", {a, b}, [a = a.edge(), b = b.edge(), av = a.value(), bv = b.value()](const Tensor& grad) {
    if (a.requires_grad()) a.add_grad(product(grad, bv, empty_like(grad)));
    if (b.requires_grad()) b.add_grad(product(grad, av, empty_like(grad)));
  });
}

}  // namespace moba::ops
