#include "kernels/swiglu/swiglu.h"

#include "src/autograd/ops/op_support.h"

namespace moba::ops {

Variable swiglu(const Variable& gate, const Variable& up) {
  check_same("swiglu", gate, up);
  const Tensor &gv = gate.value(), &uv = up.value();
  Tensor y = empty_like(gv);
  kernels::swiglu_forward(y.stream(), y.dtype(), y.numel(), gv.raw(), uv.raw(), y.raw());
  return make_output(std::move(y), "swiglu", {gate, up}, [=, gate = gate.edge(), up = up.edge()](const Tensor& dy) {
    Tensor dgate = reuse_or_empty(dy), dup = empty_like(dy);
    kernels::swiglu_backward(dy.stream(), dy.dtype(), dy.numel(), gv.raw(), uv.raw(), dy.raw(), dgate.raw(), dup.raw());
    if (gate.requires_grad()) gate.add_grad(std::move(dgate));
    if (up.requires_grad()) up.add_grad(std::move(dup));
  });
}

}  // namespace moba::ops
