#include "src/autograd/ops/op_support.h"

namespace moba::ops {

Variable reshape(const Variable& x, Shape shape) {
  // A view; add_grad gives the gradient the shape of x again.
  return make_output(x.value().reshape(std::move(shape)), "reshape", {x}, [x = x.edge()](const Tensor& grad) { x.add_grad(grad); });
}

}  // namespace moba::ops
