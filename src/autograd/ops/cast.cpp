#include "src/autograd/ops/op_support.h"

namespace moba::ops {

Variable cast(const Variable& x, DType dtype) {
  if (dtype == x.dtype()) return x;
  // add_grad converts back.
  return make_output(x.value().to(dtype), "cast", {x}, [x = x.edge()](const Tensor& grad) { x.add_grad(grad); });
}

}  // namespace moba::ops
