// y [T, out] = x [T, in] W^T;  dx = dy W;  dW += dy^T x, accumulated in the wide type inside the product.
#include "kernels/matmul/matmul.h"
#include "src/autograd/ops/op_support.h"

namespace moba::ops {
namespace {

// A weight and, where it helps, its packed form; asks for a fresh pack whenever the values have changed.
struct LinearWeight {
  Tensor w;  // [out, in]
  kernels::PackedWeight* pack = nullptr;
  uint64_t* packed_version = nullptr;

  bool packed() const { return pack && w.dtype() != DType::f64 && w.device().type == DeviceType::cpu; }

  const kernels::PackedWeight& fresh_pack() const {
    const uint64_t version = w.storage()->version;
    if (pack->empty() || *packed_version != version) {
      pack->pack(w.raw(), w.size(0), w.size(1), w.dtype());
      *packed_version = version;
    }
    return *pack;
  }

  Tensor forward(const Tensor& x) const {
    const int64_t rows = x.size(0), out = w.size(0), in = w.size(1);
    Tensor y = Tensor::empty({rows, out}, x.dtype(), x.device());
    if (packed())
      fresh_pack().forward(x.raw(), y.raw(), rows, y.dtype());
    else
      kernels::matmul({.stream = y.stream(),
                       .m = rows,
                       .n = out,
                       .k = in,
                       .dtype = x.dtype(),
                       .out_dtype = y.dtype(),
                       .transpose_b = true,
                       .a = x.raw(),
                       .b = w.raw(),
                       .c = y.raw()});
    return y;
  }

  Tensor input_gradient(const Tensor& dy, DType dtype) const {
    const int64_t rows = dy.size(0), out = w.size(0), in = w.size(1);
    Tensor dx = Tensor::empty({rows, in}, dtype, dy.device());
    if (packed())
      fresh_pack().backward_input(dy.raw(), dx.raw(), rows, dtype, false);
    else
      kernels::matmul({.stream = dx.stream(),
                       .m = rows,
                       .n = in,
                       .k = out,
                       .dtype = dy.dtype(),
                       .out_dtype = dtype,
                       .a = dy.raw(),
                       .b = w.raw(),
                       .c = dx.raw()});
    return dx;
  }
};

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

Variable linear(const Variable& x, const Variable& weight, kernels::PackedWeight* pack, uint64_t* packed_version) {
  const Tensor xv = x.value();
  const LinearWeight w{weight.value(), pack, packed_version};
  MOBA_CHECK(xv.dim() == 2 && w.w.dim() == 2 && xv.size(1) == w.w.size(1) && xv.dtype() == w.w.dtype(),
             "linear: x {} {} does not fit weight {} {}", dtype_name(xv.dtype()), to_string(xv.shape()), dtype_name(w.w.dtype()),
             to_string(w.w.shape()));
  MOBA_ASSERT((pack == nullptr) == (packed_version == nullptr));

  // x is kept only for the gradient of W.
  const Tensor kept = weight.requires_grad() ? xv : Tensor();
  return make_output(w.forward(xv), "linear", {x, weight}, [=, x = x.edge(), weight = weight.edge()](const Tensor& dy) {
    if (weight.requires_grad()) weight_gradient(weight, dy, kept);
    if (x.requires_grad()) x.add_grad(w.input_gradient(dy, x.grad_dtype()));
  });
}

}  // namespace moba::ops
