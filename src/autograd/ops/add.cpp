#include "kernels/elementwise/elementwise.h"
#include "src/autograd/ops/op_support.h"

namespace moba::ops {

Variable add(const Variable& a, const Variable& b) {
  check_same("add", a, b);
  const Tensor& av = a.value();
  Tensor y = empty_like(av);
  kernels::add(y.stream(), y.dtype(), y.numel(), av.raw(), b.value().raw(), y.raw());
  return make_output(std::move(y), "add", {a, b}, [a = a.edge(), b = b.edge()](const Tensor& grad) {
    if (a.requires_grad()) a.add_grad(grad);
    if (b.requires_grad()) b.add_grad(grad);
  });
}

}  // namespace moba::ops
