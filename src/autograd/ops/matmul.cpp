#include "kernels/matmul/matmul.h"

#include "src/autograd/ops/op_support.h"

namespace moba::ops {

Variable matmul(const Variable& a, const Variable& b) {
  const Tensor &av = a.value(), &bv = b.value();
  MOBA_CHECK(av.dim() == 2 && bv.dim() == 2 && av.size(1) == bv.size(0) && av.dtype() == bv.dtype(), "matmul: {} {} x {} {} does not fit",
             dtype_name(av.dtype()), to_string(av.shape()), dtype_name(bv.dtype()), to_string(bv.shape()));
  const int64_t m = av.size(0), k = av.size(1), n = bv.size(1);
  Tensor y = Tensor::empty({m, n}, av.dtype(), av.device());
  kernels::matmul({.stream = y.stream(),
                   .m = m,
                   .n = n,
                   .k = k,
                   .dtype = av.dtype(),
                   .out_dtype = y.dtype(),
                   .a = av.raw(),
                   .b = bv.raw(),
                   .c = y.raw()});

  return make_output(std::move(y), "matmul", {a, b}, [=, a = a.edge(), b = b.edge()](const Tensor& grad) {
    const DType dtype = grad.dtype();
    if (a.requires_grad()) {  // da = grad b^T
      Tensor da = Tensor::empty({m, k}, a.grad_dtype(), grad.device());
      kernels::matmul({.stream = da.stream(),
                       .m = m,
                       .n = k,
                       .k = n,
                       .dtype = dtype,
                       .out_dtype = da.dtype(),
                       .transpose_b = true,
                       .a = grad.raw(),
                       .b = bv.raw(),
                       .c = da.raw()});
      a.add_grad(std::move(da));
    }
    if (b.requires_grad()) {  // db = a^T grad
      Tensor db = Tensor::empty({k, n}, b.grad_dtype(), grad.device());
      kernels::matmul({.stream = db.stream(),
                       .m = k,
                       .n = n,
                       .k = m,
                       .dtype = dtype,
                       .out_dtype = db.dtype(),
                       .transpose_a = true,
                       .a = av.raw(),
                       .b = grad.raw(),
                       .c = db.raw()});
      b.add_grad(std::move(db));
    }
  });
}

}  // namespace moba::ops
