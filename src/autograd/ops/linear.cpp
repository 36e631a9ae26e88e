// y [T, out] = x [T, in] W^T;  dx = dy W;  dW += dy^T x, accumulated in the wide type inside the product.
#include "kernels/matmul/matmul.h"
#include "src/autograd/ops/op_support.h"

namespace moba::ops {
namespace {

// y = x W^T
Tensor product(const Tensor& x, const Tensor& w) {
  Tensor y = Tensor::empty({x.size(0), w.size(0)}, x.dtype(), x.device());
  kernels::matmul({.stream = y.stream(),
                   .m = x.size(0),
                   .n = w.size(0),
                   .k = w.size(1),
                   .dtype = x.dtype(),
                   .out_dtype = y.dtype(),
                   .transpose_b = true,
                   .a = x.raw(),
                   .b = w.raw(),
                   .c = y.raw()});
  return y;
}

// dx = dy W, in the type that x's gradient has
Tensor input_gradient(const Tensor& dy, const Tensor& w, DType dtype) {
  Tensor dx = Tensor::empty({dy.size(0), w.size(1)}, dtype, dy.device());
  kernels::matmul({.stream = dx.stream(),
                   .m = dy.size(0),
                   .n = w.size(1),
                   .k = w.size(0),
                   .dtype = dy.dtype(),
                   .out_dtype = dtype,
                   .a = dy.raw(),
                   .b = w.raw(),
                   .c = dx.raw()});
  return dx;
}

// dW (+)= dy^T x, into the weight's buffer; a first gradient is written without a pass of zeros before it.
void weight_gradient(const Variable& weight, const Tensor& dy, const Tensor& x) {
  const DType dtype = wide(dy.dtype());
  const bool add = weight.has_grad() && weight.grad_dtype() == dtype;
  Tensor dw = add ? weight.grad_buffer() : Tensor::empty(weight.shape(), dtype, dy.device());
  kernels::matmul({.stream = dy.stream(),
                   .m = dy.size(1),
                   .n = x.size(1),
                   .k = dy.size(0),
                   .dtype = dy.dtype(),
                   .out_dtype = dtype,
                   .transpose_a = true,
                   .beta = add ? 1.0f : 0.0f,
                   .a = dy.raw(),
                   .b = x.raw(),
                   .c = dw.raw()});
  if (!add) weight.add_grad(std::move(dw));
}

}  // namespace

Variable linear(const Variable& x, const Variable& weight) {
  const Tensor &xv = x.value(), &w = weight.value();
  MOBA_CHECK(xv.dim() == 2 && w.dim() == 2 && xv.size(1) == w.size(1) && xv.dtype() == w.dtype(),
             "linear: x {} {} does not fit weight {} {}", dtype_name(xv.dtype()), to_string(xv.shape()), dtype_name(w.dtype()),
             to_string(w.shape()));

  // x is kept only for the gradient of W.
  const Tensor kept = weight.requires_grad() ? xv : Tensor();
  return make_output(product(xv, w), "linear", {x, weight}, [=, x = x.edge(), weight = weight.edge()](const Tensor& dy) {
    if (weight.requires_grad()) weight_gradient(weight, dy, kept);
    if (x.requires_grad()) x.add_grad(input_gradient(dy, w, x.grad_dtype()));
  });
}

}  // namespace moba::ops
