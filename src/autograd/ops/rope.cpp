#include "kernels/rope/rope.h"

#include "src/autograd/ops/op_support.h"

namespace moba::ops {
namespace {

void rotate(const Tensor& x, const Tensor& y, const Tensor& positions, const Tensor& inv_freq, bool inverse) {
  kernels::rope({.stream = x.stream(),
                 .dtype = x.dtype(),
                 .tokens = x.size(0),
                 .heads = x.size(1),
                 .head_dim = x.size(2),
                 .x = x.raw(),
                 .y = y.raw(),
                 .positions = positions.data<int32_t>(),
                 .inv_freq = inv_freq.data<double>(),
                 .inverse = inverse});
}

}  // namespace

Variable rope(const Variable& x, const Tensor& positions, const Tensor& inv_freq) {
  const Tensor& xv = x.value();
  MOBA_CHECK(xv.dim() == 3 && xv.size(2) % 2 == 0, "rope: x of shape {}, must be [T, H, D] with D even", to_string(xv.shape()));
  check_dtype("rope", "positions", positions.dtype(), DType::i32);
  check_dtype("rope", "inv_freq", inv_freq.dtype(), DType::f64);
  MOBA_CHECK(positions.numel() == xv.size(0), "rope: {} positions for {} tokens", positions.numel(), xv.size(0));
  MOBA_CHECK(inv_freq.numel() == xv.size(2) / 2, "rope: {} frequencies for head size {}", inv_freq.numel(), xv.size(2));
  Tensor y = empty_like(xv);
  rotate(xv, y, positions, inv_freq, false);
  return make_output(std::move(y), "rope", {x}, [x = x.edge(), positions, inv_freq](const Tensor& grad) {
    const Tensor dx = reuse_or_empty(grad);
    rotate(grad, dx, positions, inv_freq, true);
    x.add_grad(dx);
  });
}

}  // namespace moba::ops
